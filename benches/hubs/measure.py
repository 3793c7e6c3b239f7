"""One measurement: a server on its core, the load on another, and what the server took for it."""

import json
import os
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from comparison.measure import Failed, stop, wait_for
from comparison.servers import PEERS_TARGET

LOAD = PEERS_TARGET / "release" / "hub-load"
# Beside the time that the load measures.
LOAD_ENDS_IN = 30.0
IDLE_SETTLES_IN = 0.5


def free_ports():
    """A port that is free, and the next as well."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
                return port
            except (OSError, OverflowError):
                continue


class Running:
    """A server that runs."""

    def __init__(self, hub, process, port):
        self.hub, self.process, self.port = hub, process, port

    def seconds(self):
        """Processor time of all its threads so far."""
        tasks = (task for pid in self.hub.pids(self.process) for task in Path(f"/proc/{pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def resident(self):
        """Bytes that are resident."""
        pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.hub.pids(self.process))
        return sum(pages) * os.sysconf("SC_PAGESIZE")


@contextmanager
def running(hub, core, history=0):
    """A server from when it listens until it is stopped."""
    port = free_ports()
    with tempfile.TemporaryDirectory() as folder:
        # nginx's workers run as another user.
        os.chmod(folder, 0o777)
        command = ["taskset", "-c", core, *map(str, hub.command(port, folder, history))]
        with open(f"{folder}/said", "w+", encoding="utf-8") as log:
            process = subprocess.Popen(command, env={**os.environ, **hub.environment()}, stdin=subprocess.DEVNULL,
                                       stdout=log, stderr=log)
            try:
                wait_for(port, process)
                yield Running(hub, process, port)
            except (Failed, OSError) as failed:
                log.seek(0)
                raise Failed(f"{hub.name}: {failed} {log.read().strip()[-300:]}") from None
            finally:
                stop(process)


def load(server, core, words, content, sockets=()):
    """What the load says, with the processor time that the server took meanwhile."""
    for one in sockets:
        one.setblocking(False)
    process = subprocess.Popen(["taskset", "-c", core, str(LOAD), *map(str, words)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[one.fileno() for one in sockets])
    try:
        process.stdin.write(content)
        process.stdin.close()
        began = process.stdout.readline()
        before = server.seconds()
        line = process.stdout.readline()
        spent = server.seconds() - before
        if not began or not line:
            raise Failed(f"the load failed: {process.stderr.read().decode().strip()[-300:]}")
        return {**json.loads(line), "cpu": spent}
    finally:
        for pipe in (process.stdout, process.stderr):
            pipe.close()
        stop(process)
        for one in sockets:
            one.close()


def numbers(sockets):
    """Sockets as a word for the load."""
    return ",".join(str(one.fileno()) for one in sockets)


def fan_out(hub, cores, seconds, subscribers, history=0, rate=None):
    """Distinct messages to subscribers: each when all have the one before, or so many deliveries a second."""
    with running(hub, cores[0], history) as server:
        clients = [hub.subscriber(server.port) for _ in range(subscribers)]
        publisher = hub.publisher(server.port)
        pace = ["lockstep", seconds] if rate is None else ["paced", seconds, rate / subscribers]
        words = [*pace, publisher.fileno(), numbers(clients)]
        return load(server, cores[1], words, hub.publication(), [publisher, *clients])


def publish(hub, cores, seconds, connections, depth, history):
    """Publishing by HTTP without subscribers, over connections on which so many requests are under way."""
    with running(hub, cores[0], history) as server:
        backends = [hub.publisher(server.port) for _ in range(connections)]
        words = ["requests", seconds, depth, numbers(backends)]
        result = load(server, cores[1], words, hub.publication(), backends)
        if result["bad"]:
            raise Failed(f"{result['bad']} requests were refused")
        return result


def idle(hub, cores, clients):
    """Bytes that a subscribed client takes which hears nothing."""
    with running(hub, cores[0]) as server:
        # What the first ones make it allocate once is no matter of theirs.
        sockets = [hub.subscriber(server.port) for _ in range(100)]
        before = server.resident()
        sockets += [hub.subscriber(server.port) for _ in range(clients)]
        time.sleep(IDLE_SETTLES_IN)
        taken = server.resident() - before
        for one in sockets:
            one.close()
        return {"bytes": taken / clients}


def recover(hub, cores, clients, messages):
    """Clients that come back at once and get what they missed."""
    with running(hub, cores[0], messages) as server:
        hub.subscriber(server.port).close()
        for _ in range(messages):
            hub.publish_one(server.port)
        parts = hub.return_of_a_client()
        return load(server, cores[1], ["recover", server.port, clients, messages], b"\xff".join(parts))
