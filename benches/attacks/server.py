"""The server under attack, from outside: how it is started, and what /proc says of it."""

import os
import resource
import socket
import subprocess
import tempfile
import time

from attacks import HONEST, wire
from attacks.processes import die_with, place
from comparison.measure import free_port, stop, wait_for

PATHS = {"chat": "/websockets"}
# A server that is alive answers within this long, however much it has left to do.
ANSWERS_IN = 5.0
SAID_BYTES = 400
TICKS = os.sysconf("SC_CLK_TCK")


class Server:
    """A process on a port of its own, with what a row wants of it."""

    def __init__(self, command, core, nice, row):
        self.port, self.admin_port = free_port(), free_port()
        self.app, self.path, self.preface = row.app, PATHS.get(row.app, "/"), row.preface
        self._log = tempfile.TemporaryFile()
        parent = os.getpid()

        def prepare():
            die_with(parent)
            place(core, nice)
            if row.address_space:
                resource.setrlimit(resource.RLIMIT_AS, (row.address_space, row.address_space))

        flags = [flag.format(admin=self.admin_port) for flag in row.flags]
        self._process = subprocess.Popen(command(self.port) + flags, stdin=subprocess.DEVNULL, stdout=self._log,
                                         stderr=subprocess.PIPE if row.log_unread else self._log, preexec_fn=prepare)
        self.pid = self._process.pid
        wait_for(self.port, self._process)

    def is_running(self):
        """Whether the process is there."""
        return self._process.poll() is None

    def answers(self):
        """Whether it is there and takes a connection."""
        deadline = time.monotonic() + ANSWERS_IN
        while self.is_running() and time.monotonic() < deadline:
            try:
                with socket.create_connection((HONEST, self.port), timeout=ANSWERS_IN) as connection:
                    connection.sendall(self.preface + wire.request("/healthz"))
                    if connection.recv(4096).startswith(b"HTTP/1.1"):
                        return True
            except OSError:
                time.sleep(0.05)
        return False

    def _status(self, name):
        try:
            with open(f"/proc/{self.pid}/status", encoding="ascii", errors="replace") as lines:
                return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)
        except OSError:
            return None

    def resident_bytes(self):
        """Memory in use; `None` when it is dead."""
        return self._status("VmRSS:")

    def peak_bytes(self):
        """The most memory that was in use."""
        return self._status("VmHWM:")

    def cpu_seconds(self):
        """Processor time so far."""
        try:
            with open(f"/proc/{self.pid}/stat", encoding="ascii", errors="replace") as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) / TICKS

    def last_words(self):
        """The end of what it has logged."""
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(self._log.tell() - SAID_BYTES, 0))
        return self._log.read().decode(errors="replace").strip()

    def stop(self):
        """Ends it. Says with which exit code, where it had ended by itself."""
        ended = self._process.poll()
        self._process.kill()
        stop(self._process)
        if self._process.stderr:
            self._process.stderr.close()
        self._log.close()
        return ended
