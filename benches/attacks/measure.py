"""One row: a fresh server on its core; attackers, the victim and other honest clients on the other core."""

import multiprocessing
import time
from functools import partial

from attacks import honest
from attacks.field import CLOSED, CONNECTIONS, COUNTERS, RECEIVED, SENT, Field
from attacks.processes import READY_IN, REAL_TIME, Child, Start
from attacks.rows import PROCESS_BYTES
from attacks.server import ANSWERS_IN, Server
from comparison.measure import Failed

# The victim sees an answer at once, whoever else is on its core; attackers come last.
VICTIM_NICE, SERVER_NICE, CROWD_NICE, ATTACKER_NICE = REAL_TIME, -10, -5, 0
# The server is left in peace before the attack, so that its memory is that of a server at rest.
REST_SECONDS = 0.3
# For so long the memory of an attack that is over may stay.
GIVES_BACK_IN = 5.0
ATTACKERS_END_IN = 2.0
# How much later than the attackers the victim may end.
VICTIM_ENDS_IN = honest.PATIENCE + 5.0


def measure(row, command, cores, seconds, real_time=False):
    """What became of the victim and the server."""
    seconds = max(seconds, row.least_seconds)
    server_core, client_core = cores
    server = Server(command, server_core, REAL_TIME if real_time else SERVER_NICE, row)
    children = []
    try:
        return Run(row, server, client_core, seconds, children).result()
    finally:
        for child in children:
            child.kill()
        server.stop()


class Run:
    """A row that is being measured."""

    def __init__(self, row, server, core, seconds, children):
        self.row, self.server, self.core, self.children = row, server, core, children
        self.start = Start(seconds)
        self.counts = []

    def _child(self, function, nice):
        child = Child(function, self.core, nice)
        self.children.append(child)
        return child

    def _honest(self):
        """Starts the honest clients that are there from the beginning."""
        others = []
        if self.row.crowd:
            others.append(self._child(partial(self.row.crowd.run, self.server, self.start), CROWD_NICE))
        if self.row.newcomers:
            others.append(self._child(partial(honest.newcomers, self.server, self.start), CROWD_NICE))
        self._wait_for(len(others), "honest clients")
        return others

    def _attackers(self):
        """Starts the attackers, each process with its share of the connections."""
        row, attackers = self.row, []
        for number in range(row.processes):
            counts = multiprocessing.RawArray("q", COUNTERS)
            share = (row.connections + number) // row.processes
            field = Field(self.server, share, self.start, counts)
            attackers.append(self._child(partial(row.attack, field), ATTACKER_NICE))
            self.counts.append(counts)
        self._wait_for(row.processes, "attackers")
        return attackers

    def _wait_for(self, count, who):
        if not self.start.wait_for(count):
            raise Failed(f"the {who} did not get their connections in {READY_IN:.0f} s: {self.server.last_words()}")

    def result(self):
        """Attacks, and says what came of it."""
        server, start = self.server, self.start
        others = self._honest()
        attackers = self._attackers()
        victim = self._child(partial(honest.victim, server, start), VICTIM_NICE)
        self._wait_for(1, "victim")
        time.sleep(REST_SECONDS)
        before, cpu_before = server.resident_bytes(), server.cpu_seconds()
        began = start.go()
        time.sleep(max(began + start.seconds - time.monotonic(), 0))
        start.end()
        found = [child.result(VICTIM_ENDS_IN) for child in (victim, *others)]
        self._end(attackers)
        cpu = server.cpu_seconds()
        answers = server.answers()
        self._end([victim, *others])
        after = self._after(before)
        peak = server.peak_bytes()
        lived = server.is_running()
        state = {"lived": lived, "answers": answers, "said": None if lived else server.last_words()}
        return self._content(found, before, peak, after, cpu and cpu - cpu_before) | state

    def _end(self, children):
        deadline = time.monotonic() + ATTACKERS_END_IN
        for child in children:
            child.result(max(deadline - time.monotonic(), 0))
            child.kill()
            self.children.remove(child)

    def _after(self, before):
        """Memory once it is no more than it may be, or its time is over."""
        deadline = time.monotonic() + GIVES_BACK_IN
        while True:
            after = self.server.resident_bytes()
            if after is None or after <= before + PROCESS_BYTES // 4 or time.monotonic() >= deadline:
                return after
            time.sleep(0.1)

    def _content(self, found, before, peak, after, cpu):
        victim, *others = found
        times = sorted((victim or {}).get("times", []))
        at = lambda part: round(times[min(int(len(times) * part), len(times) - 1)] * 1000, 3) if times else None
        total = lambda index: sum(counts[index] for counts in self.counts)
        closed = lambda results: sum(one["closed"] if one else 0 for one in results)
        return {
            "row": self.row.name, "what": self.row.what, "app": self.row.app, "seconds": self.start.seconds,
            "sent_bytes": total(SENT), "received_bytes": total(RECEIVED), "connections": total(CONNECTIONS),
            "attackers_closed": total(CLOSED),
            "messages": len(times), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0),
            "missing": (victim or {}).get("missing", 0),
            "before_bytes": before, "peak_bytes": peak, "after_bytes": after,
            "cpu_seconds": None if cpu is None else round(cpu, 2),
            "victims_closed": closed([victim]), "closed": closed(found), "honest": sum(one["open"] for one in found if one),
            "lost_track": sum(one is None for one in found),
        }


def failures(row, result):
    """Which of the bounds a result passes, in words."""
    failed = []
    if not result["lived"]:
        failed.append("the server died")
    elif not result["answers"]:
        failed.append(f"the server did not answer in {ANSWERS_IN:g} s")
    if result["lost_track"]:
        failed.append("honest clients came to nothing")
    bound = row.p99_bound_ms()
    if bound is not None and (result["p99_ms"] is None or result["p99_ms"] > bound):
        failed.append(f"p99 over {bound:g} ms")
    if result["peak_bytes"] and result["peak_bytes"] - result["before_bytes"] > row.growth_bound_bytes():
        failed.append(f"memory grew by more than {row.growth_bound_bytes() >> 20} MiB")
    if result["after_bytes"] and result["after_bytes"] - result["before_bytes"] > PROCESS_BYTES:
        failed.append("memory was not given back")
    if result["closed" if row.bounds_closed else "victims_closed"]:
        failed.append("honest clients were closed")
    return failed
