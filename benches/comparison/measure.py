"""One measurement: a server on its core, the load on another."""

import json
import os
import socket
import subprocess
import tempfile
import time

SERVER_STARTS_IN = 10.0
# Beside the time that the load measures: connecting, and messages that are still under way.
LOAD_ENDS_IN = 90.0


class Failed(Exception):
    """A measurement came to nothing; the text says why."""


def free_port():
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process):
    """Waits until a server answers at its port."""
    deadline = time.monotonic() + SERVER_STARTS_IN
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Failed(f"the server ended at once, with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise Failed("the server does not listen")


def stop(process):
    """Ends a process that was started here."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def measure(server, cell, percore, seconds, cores):
    """What `percore bench --json` says of a server in a cell, without its course over time."""
    port = free_port()
    environment = {**os.environ, **server.environment()}
    command = ["taskset", "-c", str(cores[0]), *map(str, server.command(port, cell))]
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/server", "w+", encoding="utf-8") as log:
        # taskset becomes the server, so the process that is measured and stopped is the server's own.
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_for(port, process)
            result = load(cell, percore, seconds, cores[1], f"{server.scheme}://127.0.0.1:{port}/", process.pid, folder)
            if process.poll() is not None:
                raise Failed(f"the server ended with {process.returncode}")
            return result
        except Failed as failed:
            log.seek(0)
            said = log.read().strip()[-400:]
            raise Failed(f"{failed}; it said: {said}" if said else str(failed)) from None
        finally:
            stop(process)


def load(cell, percore, seconds, core, url, pid, folder):
    """Runs the load, and reads what it has to say."""
    path = f"{folder}/load.json"
    workload, *flags = cell.load(seconds)
    command = ["taskset", "-c", str(core), str(percore), "bench", workload, url, *flags,
               "--pid", str(pid), "--json", path, "--quiet"]
    limit = seconds * cell.stretch() + LOAD_ENDS_IN
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        raise Failed(f"the load did not end in {limit:.0f} s") from None
    try:
        with open(path, encoding="utf-8") as file:
            result = json.load(file)
    except (OSError, ValueError):
        raise Failed(f"no result from the load, exit code {done.returncode}: {done.stderr.strip()[-400:]}") from None
    result.pop("over_time", None)
    errors = {kind: count for kind, count in (result.get("errors") or {}).items() if count}
    if errors or done.returncode != 0:
        raise Failed(", ".join(f"{count} {kind}" for kind, count in errors.items()) or done.stderr.strip()[-400:])
    return result
