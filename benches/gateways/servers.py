"""The gateways and the application behind them, each a process or several on a core of its own."""

import configparser
import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

from attacks.processes import die_with
from comparison import BENCHES, ROOT
from comparison.measure import Failed, free_port, stop, wait_for
from comparison.servers import PEERS_TARGET
from comparison.tools import need_command, run, said

# What a gateway tells the application.
ANSWERED, TOLD = "answered", "told"
PUSHPIN_DEFAULTS, ZURL_DEFAULTS = "/etc/pushpin/pushpin.conf", "/etc/zurl.conf"
# For limits on messages and requests, which are not what is measured.
NO_LIMIT = 1_000_000


def start(command, core, log):
    """A process on a core, which ends with this one."""
    parent = os.getpid()
    command = ["taskset", "-c", str(core), *map(str, command)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=lambda: die_with(parent))


class Origin:
    """The application, which answers at once."""

    PROGRAM = PEERS_TARGET / "release" / "origin"

    @staticmethod
    def prepare():
        """Builds it."""
        run("cargo", "build", "--release", "--locked", "--bin", "origin", "--manifest-path", BENCHES / "peers" / "Cargo.toml",
            "--target-dir", PEERS_TARGET)

    def __init__(self, core):
        self.port = free_port()
        self._process = start([self.PROGRAM, self.port], core, subprocess.DEVNULL)
        wait_for(self.port, self._process)

    def _get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            return answer.read().decode()

    def messages(self):
        """How many messages came."""
        return int(self._get("/count"))

    def ids(self):
        """The ids of the connections that opened."""
        return self._get("/ids").split()

    def stop(self):
        """Ends it."""
        stop(self._process)


class Gateway:
    """A gateway in front of an origin. `port` is for clients, `api_port` for the application."""

    def __init__(self, name, core, origin, log):
        self.name, self.core, self.origin, self._log = name, core, origin, log
        self.port, self.api_port = free_port(), free_port()
        self._processes = []

    def _start(self, *command):
        self._processes.append(start(command, self.core, self._log))

    def _wait_for(self, *ports):
        for port in ports:
            wait_for(port, self._processes[-1])

    def pids(self):
        """All its processes."""
        return [pid for process in self._processes for pid in descendants(process.pid)]

    def cpu_seconds(self):
        """Processor time so far, of all threads of all processes."""
        return sum(cpu_seconds(pid) for pid in self.pids())

    def resident_bytes(self):
        """Memory in use, of all processes."""
        return sum(resident_bytes(pid) for pid in self.pids())

    def stop(self):
        """Ends it, with whatever it started."""
        pids = self.pids() if all(process.poll() is None for process in self._processes) else []
        for process in self._processes:
            stop(process)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Percore(Gateway):
    """`percore serve gateway`, one worker with its helper thread."""

    built = ROOT / "target" / "release" / "percore"
    program = built
    path_of_many = "/"

    @classmethod
    def prepare(cls):
        """Builds it, unless another program is to be measured."""
        if cls.program == cls.built:
            run("cargo", "build", "--release", "--locked", "--target-dir", ROOT / "target")

    @classmethod
    def version(cls):
        """What is measured."""
        return f"percore {said(cls.program, '--version').removeprefix('percore ')}"

    def start(self, form):
        """Starts it: with answers that go to clients, or with an application that sends by requests of its own."""
        events = ["--events", "aws", "--aws-route-response"] if form == ANSWERED else []
        self._start(self.program, "serve", "gateway", "--origin-url", f"http://127.0.0.1:{self.origin.port}/", "--listen",
                    f"127.0.0.1:{self.port}", "--service-listen", f"127.0.0.1:{self.api_port}", "--log-level", "warn", *events)
        self._wait_for(self.port, self.api_port)

    def names(self, count):
        """What connections are called when something is sent to them, once all are known."""
        deadline = time.monotonic() + 60
        while len(ids := self.origin.ids()) < count:
            if time.monotonic() > deadline:
                raise Failed(f"the application knows of {len(ids)} of {count} connections")
            time.sleep(0.05)
        return ids

    def send(self, names, text):
        """The request that sends a text to connections, as applications of websocket-service do."""
        messages = [{"ConnectionIds": names, "Message": {"Binary": None, "Text": text}}]
        return post("/sr", json.dumps({"OutgoingWebSocketMessages": messages}, separators=(",", ":")))

    send_to_many = send

    def send_by_rest(self, name, text):
        """The same to one, by the path that names it."""
        return post(f"/connections/{urllib.parse.quote(name, safe='')}", text)

    def publish(self, channel, text):
        """The request that sends a text to all on a channel."""
        return post(f"/channels/{channel}", text)


class Pushpin(Gateway):
    """Debian's Pushpin: five processes."""

    path_of_many = "/subscribe?all"

    @classmethod
    def prepare(cls):
        """Installs it."""
        need_command("pushpin", "pushpin")

    @classmethod
    def version(cls):
        """What is measured."""
        return f"Pushpin {said('dpkg-query', '-W', '-f', '${Version}', 'pushpin')} of Debian"

    def start(self, _):
        """Starts it as Debian has it, but for ports and folders, and limits that are not what is measured."""
        self._folder = tempfile.TemporaryDirectory(prefix="pushpin")
        folder = self._folder.name
        pipes = {name: f"ipc://{folder}/{name}" for name in ("in", "in_stream", "out", "push", "sub", "command")}
        Path(folder, "routes").write_text(f"* 127.0.0.1:{self.origin.port},over_http\n")
        zurl = written(ZURL_DEFAULTS, f"{folder}/zurl.conf", {"General": {
            "in_spec": pipes["in"], "in_stream_spec": pipes["in_stream"], "out_spec": pipes["out"], "in_req_spec": "",
            "max_open_requests": str(NO_LIMIT), "in_hwm": str(NO_LIMIT), "out_hwm": str(NO_LIMIT)}})
        pushpin = written(PUSHPIN_DEFAULTS, f"{folder}/pushpin.conf", {
            "global": {"rundir": folder, "ipc_prefix": "bench-"},
            "runner": {"http_port": str(self.port), "logdir": folder, "log_level": "1"},
            "proxy": {"zurl_out_specs": pipes["in"], "zurl_out_stream_specs": pipes["in_stream"], "zurl_in_specs": pipes["out"]},
            "handler": {"push_in_http_port": str(self.api_port), "push_in_spec": pipes["push"], "push_in_sub_specs": pipes["sub"],
                        "command_spec": pipes["command"], "message_rate": str(NO_LIMIT), "message_hwm": str(NO_LIMIT)}})
        # As Pushpin does: errors only.
        self._start("zurl", f"--config={zurl}", "--loglevel=0")
        self._start("pushpin", f"--config={pushpin}")
        self._wait_for(self.port, self.api_port)

    def stop(self):
        """Ends it."""
        super().stop()
        self._folder.cleanup()

    def names(self, count):
        """What connections are subscribed to, each to a channel of its own."""
        return [str(number) for number in range(count)]

    def send(self, names, text):
        """The request that sends a text to connections."""
        items = [{"channel": name, "formats": {"ws-message": {"content": text}}} for name in names]
        return post("/publish/", json.dumps({"items": items}, separators=(",", ":")))

    def send_to_many(self, _, text):
        """The request that sends a text to all who are connected: one channel is cheaper than a name for each."""
        return self.publish("all", text)

    def publish(self, channel, text):
        """The request that sends a text to all on a channel."""
        return self.send([channel], text)


def written(defaults, path, changes):
    """A configuration with changes; returns its path."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(defaults)
    for section, values in changes.items():
        config[section].update(values)
    with open(path, "w", encoding="utf-8") as file:
        config.write(file)
    return path


def post(path, content):
    """A request with content."""
    content = content.encode()
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


def descendants(pid):
    """A process and all that come from it."""
    found, left = [], [pid]
    while left:
        found.append(left.pop())
        for thread in Path(f"/proc/{found[-1]}/task").iterdir():
            left += map(int, (thread / "children").read_text().split())
    return found


def cpu_seconds(pid):
    """Processor time of all threads of a process."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def resident_bytes(pid):
    """Memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
