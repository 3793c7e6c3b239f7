"""Runs the fuzzing client against a server and prints a line for each case that falls short, and a summary.

Usage: client.py URL REPORT_DIR CASE...    a CASE may be a pattern such as 1.* or 12.1.*

Exit status: 0 when every case is OK or INFORMATIONAL, in its behaviour and in how the connection was closed; otherwise
1. NON-STRICT counts as falling short, and so does a run without a single case.
"""

import collections
import json
import pathlib
import shutil
import subprocess
import sys

TIMEOUT_SECONDS = 3600
AGENT = "percore"
# The library rounds the end of a timeout down to a whole second, so its default of one second may be over at once: the
# case would be held against a server that had a millisecond to answer.
PATIENCE = {"openHandshakeTimeout": 10, "closeHandshakeTimeout": 5, "serverConnectionDropTimeout": 5}

# In a process of its own: the reactor has no other way out when the suite's report fails.
CLIENT = """
import json, os, sys, traceback, txaio
txaio.use_twisted()
from autobahntestsuite import choosereactor, fuzzing
from twisted.internet import reactor

create = fuzzing.FuzzingFactory.createReports

def create_or_exit(self, *args, **kwargs):
    try:
        create(self, *args, **kwargs)
    except Exception:
        traceback.print_exc()
        os._exit(2)

fuzzing.FuzzingFactory.createReports = create_or_exit
fuzzing.startClient(json.load(open(sys.argv[1])))
reactor.run()
"""


def run(url, folder, cases):
    """Runs the cases; gives the suite's results by case."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    spec, log, report = folder / "spec.json", folder / "log.txt", folder / "report"
    spec.write_text(json.dumps({
        "outdir": str(report),
        "servers": [{"agent": AGENT, "url": url}],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
        "options": PATIENCE,
    }))
    command = [sys.executable, "-W", "ignore", "-c", CLIENT, str(spec)]
    try:
        with log.open("w") as out:
            subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        sys.exit(f"autobahn: not done after {TIMEOUT_SECONDS} s: see {log}")
    index = report / "index.json"
    if not index.exists():
        sys.exit(f"autobahn: no report: see {log}")
    return json.loads(index.read_text()).get(AGENT, {})


def main():
    url, folder, cases = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:]
    results = run(url, folder, cases)
    behaviors = collections.Counter(result["behavior"] for result in results.values())
    short = 0
    for case in sorted(results, key=lambda case: [int(part) for part in case.split(".")]):
        behavior, close = results[case]["behavior"], results[case]["behaviorClose"]
        if not {behavior, close} <= {"OK", "INFORMATIONAL"}:
            short += 1
            print(f"{case}: {behavior}, close {close}")
    counts = ", ".join(f"{count} {behavior}" for behavior, count in behaviors.most_common())
    print(f"autobahn: {len(results)} cases: {counts}; {short} fall short; {folder / 'report' / 'index.html'}")
    sys.exit(1 if short or not results else 0)


main()
