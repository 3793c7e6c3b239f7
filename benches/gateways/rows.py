"""What is measured. Each row starts an application and a gateway of its own, and says what came of it by name."""

import contextlib
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from comparison.measure import Failed
from gateways.clients import Floods, Pipe, Readers, open_all, close_all
from gateways.servers import ANSWERED, TOLD, Origin, Percore

MESSAGE_BYTES = 125
# Connections that are opened a second: of those that come faster Pushpin refuses some.
CONNECT_RATE = 400
# Requests of an application: connections, and how many are under way on each.
PIPES, DEPTH = 4, 64
# Connections that are sent to.
READERS = 100
# How often all of them are sent to at once.
TIMES = 5
PUBLISHED_TO = 100
# What is sent, and how long its frame is.
TEXT, FRAME_BYTES = "x" * 10, 12
# What stands for the time, and its length.
STAMP, STAMP_BYTES = "T" * 16, 16
# What has just begun is over after so many seconds.
SETTLES = 4.0


class Rig:
    """What a row has to work with."""

    def __init__(self, kind, cores, seconds, form, load):
        self.kind, self.cores, self.seconds, self.form, self.load = kind, cores, seconds, form, load

    @contextlib.contextmanager
    def running(self):
        """An application and a gateway before it."""
        with tempfile.TemporaryFile() as log:
            origin = Origin(self.cores[1])
            gateway = self.kind("", self.cores[0], origin, log)
            try:
                gateway.start(self.form)
                yield gateway
            except Failed as failed:
                log.seek(0)
                said = log.read().decode(errors="replace").strip()[-300:]
                raise Failed(f"{failed}; it said: {said}" if said else str(failed)) from None
            finally:
                gateway.stop()
                origin.stop()


def percentile(values, percent):
    """A value that as many percent are at most."""
    values = sorted(values)
    return values[min(len(values) * percent // 100, len(values) - 1)]


def echo(rig, connections, rate=None):
    """Messages that come back by the application's answer: each connection sends one once it has the last one back, or all
    together send this many a second."""
    with rig.running() as gateway, tempfile.TemporaryDirectory() as folder:
        # A turn of all takes longer where they are many.
        seconds = rig.seconds * (3 if connections > 1000 else 1)
        command = ["taskset", "-c", str(rig.cores[1]), rig.load, "bench", "echo", f"ws://127.0.0.1:{gateway.port}/", "--text",
                   "--size", MESSAGE_BYTES, "--connections", connections, "--duration", f"{seconds:g}s", "--quiet",
                   "--handshake-timeout", "60s", "--connect-rate", CONNECT_RATE, "--json", f"{folder}/load.json"]
        command += ["--rate", rate] if rate else []
        command += [word for pid in gateway.pids() for word in ("--pid", pid)]
        try:
            done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE, text=True, timeout=seconds + 120)
        except subprocess.TimeoutExpired:
            raise Failed("the load did not end") from None
        path = Path(folder, "load.json")
        said = json.loads(path.read_text()) if path.exists() else {"errors": {}}
        if done.returncode != 0:
            errors = [f"{count} {kind}" for kind, count in said["errors"].items() if count]
            raise Failed(", ".join(errors) or done.stderr.strip()[-200:])
    latency = said["latency_seconds"]
    return {"rate": said["messages_per_second"], "per_cpu_second": 1 / said["server"]["cpu_seconds_per_message"],
            "p50_ms": latency["p50"] * 1e3, "p99_ms": latency["p99"] * 1e3}


def events(rig):
    """Clients send all they can."""
    with rig.running() as gateway:
        floods = Floods(gateway.port, READERS, MESSAGE_BYTES)
        floods.run(1)
        before, cpu, began = gateway.origin.messages(), gateway.cpu_seconds(), time.monotonic()
        floods.run(rig.seconds)
        count, took = gateway.origin.messages() - before, time.monotonic() - began
        spent = gateway.cpu_seconds() - cpu
        floods.close()
    return {"rate": count / took, "per_cpu_second": count / spent}


def batches(requests):
    """Requests in batches, as many as are under way on a connection."""
    return [requests[start:start + DEPTH] for start in range(0, len(requests), DEPTH)]


def requests_a_second(rig, request):
    """The application sends messages, each to one connection, by requests of its own."""
    with rig.running() as gateway:
        readers = Readers(gateway.port, [f"/subscribe?{number}" for number in range(READERS)])
        names = gateway.names(READERS)
        requests = batches([request(gateway, names[number % READERS]) for number in range(READERS * DEPTH)])
        pipe = Pipe(gateway.api_port, PIPES, requests[0][0])
        # That of the sample.
        readers.read_bytes(FRAME_BYTES, 5)
        read = [0]

        def drain():
            read[0] += sum(map(len, readers.read(0)))

        cpu, began = gateway.cpu_seconds(), time.monotonic()
        count = pipe.run(requests, rig.seconds, drain)
        took = time.monotonic() - began
        left = count * FRAME_BYTES - read[0]
        if left > 0 and readers.read_bytes(left, 30) < left:
            raise Failed("messages that were answered did not come")
        spent = gateway.cpu_seconds() - cpu
        pipe.close()
        readers.close()
    return {"rate": count / took, "per_cpu_second": count / spent}


def by_list(gateway, name):
    """A message by the request that may name many."""
    return gateway.send([name], TEXT)


def by_path(gateway, name):
    """A message by a request whose path names the connection."""
    send = gateway.send_by_rest if isinstance(gateway, Percore) else gateway.publish
    return send(name, TEXT)


def delivery(rig, rate):
    """Requests at a given rate; from when each was due to when its message came."""
    with rig.running() as gateway:
        readers = Readers(gateway.port, [f"/subscribe?{number}" for number in range(READERS)])
        names = gateway.names(READERS)
        heads = [gateway.send([name], STAMP) for name in names]
        pipe = Pipe(gateway.api_port, 1, heads[0])
        readers.read_bytes(STAMP_BYTES + 2, 5)
        send, times, sent = pipe.sender(), [], 0
        began = time.monotonic_ns() + 10_000_000
        total, step = int(rate * rig.seconds), 1e9 / rate
        deadline = time.monotonic() + rig.seconds + 10
        while len(times) < total and time.monotonic() < deadline:
            now, due = time.monotonic_ns(), []
            while sent < total and (at := began + int(sent * step)) <= now:
                due.append(heads[sent % READERS].replace(STAMP.encode(), b"%016x" % at))
                sent += 1
            send(due)
            for piece in readers.read(0.0001):
                at = time.monotonic_ns()
                for start in range(2, len(piece), STAMP_BYTES + 2):
                    times.append(at - int(piece[start:start + STAMP_BYTES], 16))
        if len(times) < total:
            raise Failed(f"{len(times)} of {total} messages came")
        pipe.close()
        readers.close()
    return {"p50_ms": percentile(times, 50) / 1e6, "p99_ms": percentile(times, 99) / 1e6}


def one_to_many(rig, count):
    """One request with many names, until the last connection has its message."""
    with rig.running() as gateway:
        readers = Readers(gateway.port, [gateway.path_of_many] * count)
        request = gateway.send_to_many(gateway.names(count), TEXT)
        pipe = Pipe(gateway.api_port, 1, request)
        readers.read_bytes(count * FRAME_BYTES, 30)
        took, cpu = [], gateway.cpu_seconds()
        for _ in range(TIMES):
            readers.tell_once(True)
            began = time.monotonic()
            pipe.send_one(request)
            took.append(readers.arrival(30) - began)
            readers.tell_once(False)
            readers.read_bytes(count * FRAME_BYTES, 30)
        spent = gateway.cpu_seconds() - cpu
        pipe.close()
        readers.close()
    return {"ms": statistics.median(took) * 1e3, "cpu_ms": spent / TIMES * 1e3}


def publish(rig):
    """Each request is for all on a channel."""
    with rig.running() as gateway:
        readers = Readers(gateway.port, ["/subscribe?all"] * PUBLISHED_TO)
        gateway.names(PUBLISHED_TO)
        pipe = Pipe(gateway.api_port, PIPES, gateway.publish("all", TEXT))
        readers.read_bytes(PUBLISHED_TO * FRAME_BYTES, 5)
        read = [0]

        def drain():
            read[0] += sum(map(len, readers.read(0)))

        cpu, began = gateway.cpu_seconds(), time.monotonic()
        count = pipe.run(batches([gateway.publish("all", TEXT)] * DEPTH), rig.seconds, drain)
        left = count * PUBLISHED_TO * FRAME_BYTES - read[0]
        got = read[0] + (readers.read_bytes(left, 30) if left > 0 else 0)
        took, spent = time.monotonic() - began, gateway.cpu_seconds() - cpu
        pipe.close()
        readers.close()
    return {"rate": count / took, "deliveries": got / FRAME_BYTES / took,
            "per_cpu_second": got / FRAME_BYTES / spent}


def idle(rig, count):
    """Connections that say nothing, with all that is left of opening them."""
    with rig.running() as gateway:
        time.sleep(SETTLES)
        before = gateway.resident_bytes()
        crowd = open_all(gateway.port, ["/"] * count)
        time.sleep(SETTLES)
        after = gateway.resident_bytes()
        close_all(crowd)
    return {"bytes": (after - before) / count}


class Row:
    """A measurement."""

    def __init__(self, name, form, measure, *arguments):
        self.name, self.form, self._measure, self._arguments = name, form, measure, arguments

    def run(self, rig):
        """What came of it."""
        return self._measure(rig, *self._arguments)


ROWS = [
    *(Row(f"echo-{count}", ANSWERED, echo, count) for count in (10, 100, 1000, 10_000)),
    *(Row(f"paced-{count}", ANSWERED, echo, count, 500) for count in (1000, 10_000)),
    Row("events", TOLD, events),
    Row("sr", TOLD, requests_a_second, by_list),
    Row("post", TOLD, requests_a_second, by_path),
    Row("delivery", TOLD, delivery, 5000),
    Row("to-10000", TOLD, one_to_many, 10_000),
    Row("publish", TOLD, publish),
    Row("idle", TOLD, idle, 10_000),
]
