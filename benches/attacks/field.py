"""What an attacker has: connections, and ways to send on them as fast as the server takes it."""

import select
import socket
import struct
import time

from attacks import ATTACKER, HONEST, wire

SENT, RECEIVED, CONNECTIONS, CLOSED = range(4)
COUNTERS = 4
# Sent at a time: as much as percore reads at once.
PART_BYTES = 512 * 1024
HANDSHAKE_IN = 30.0
# What comes before the attack may take this long.
PREPARES_IN = 10.0
SCRATCH_BYTES = 1024 * 1024
# How often somebody who waits looks at the clock.
LOOK_EVERY = 0.05
_scratch = bytearray(SCRATCH_BYTES)


class Stream:
    """A connection, what it sends first, and what it then sends again and again."""

    def __init__(self, connection, block, first=b"", reads=True, part=PART_BYTES):
        self.connection, self.reads, self.part = connection, reads, part
        self.first, self.block, self.offset = memoryview(first), memoryview(block), 0

    def next_part(self):
        """What comes next, and whether it is of the block."""
        if self.first:
            return self.first[:self.part]
        return self.block[self.offset:self.offset + self.part]

    def sent(self, count):
        """The socket took so much."""
        if self.first:
            self.first = self.first[count:]
        elif self.block:
            self.offset = (self.offset + count) % len(self.block)

    def wants(self):
        """The events to wait for."""
        sends = select.EPOLLOUT if self.first or self.block else 0
        return sends | (select.EPOLLIN if self.reads else 0)


class Field:
    """One process of attackers, with `share` connections of all that the attack has."""

    def __init__(self, server, share, start, counts, address=ATTACKER):
        self.server, self.share, self.address = server, share, address
        self.port, self.path = server.port, server.path
        self._start, self._counts, self._ends = start, counts, time.monotonic() + PREPARES_IN

    def begin(self):
        """All is prepared: waits for the beginning."""
        self._start.is_ready()
        self._ends = self._start.wait() + self._start.seconds

    def left(self):
        """Seconds that the attack still has."""
        return max(self._ends - time.monotonic(), 0)

    def pause(self, seconds):
        """Waits, at most until the end."""
        time.sleep(min(seconds, self.left()))

    def connect(self, receive_buffer=None, port=None):
        """A connection."""
        connection = socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.bind((self.address, 0))
        connection.settimeout(HANDSHAKE_IN)
        connection.connect((HONEST, port or self.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._counts[CONNECTIONS] += 1
        return connection

    def upgraded(self, count=None, deflate=None, receive_buffer=None):
        """Connections that have their upgrade; all of our share, unless told otherwise."""
        connections = [self.connect(receive_buffer) for _ in range(self.share if count is None else count)]
        for connection in connections:
            connection.sendall(wire.upgrade(self.path, deflate))
        for connection in connections:
            answer = b""
            while b"\r\n\r\n" not in answer:
                part = connection.recv(4096)
                if not part:
                    raise ConnectionError(f"no upgrade: {answer!r}")
                answer += part
            if b" 101 " not in answer:
                raise ConnectionError(f"no upgrade: {answer!r}")
            connection.setblocking(False)
        return connections

    def send(self, connection, data):
        """Sends all of it, as fast as the server takes it, and reads nothing; at most until the end."""
        self.pump([Stream(connection, b"", data, reads=False)], until=lambda stream: not stream.first)

    def prepare(self, streams):
        """Sends all that the streams have first, before the attack begins."""
        for stream in streams:
            self.pump([stream], until=lambda stream: not stream.first)
        self._counts[SENT] = 0

    def count_sent(self, count):
        """So many bytes were sent by other means."""
        self._counts[SENT] += count

    def pump(self, streams, comes_back=None, until=None):
        """Sends on all streams, and reads what comes, until the end. Where `comes_back` makes a stream, one that the server
        closed is replaced. `until` ends it earlier, once that holds for a stream."""
        poll = select.epoll()
        live = {}
        for stream in streams:
            self._take(poll, live, stream)
        while self.left() and live:
            for descriptor, event in poll.poll(LOOK_EVERY):
                stream = live[descriptor]
                if not self._move(stream, event):
                    del live[descriptor]
                    stream.connection.close()
                    self._counts[CLOSED] += 1
                    if comes_back and self.left():
                        self._come_back(poll, live, comes_back)
                elif until and until(stream):
                    return
                elif not stream.block and not stream.first:
                    poll.modify(descriptor, stream.wants())
        poll.close()

    def _take(self, poll, live, stream):
        stream.connection.setblocking(False)
        live[stream.connection.fileno()] = stream
        poll.register(stream.connection, stream.wants())

    def _come_back(self, poll, live, comes_back):
        try:
            self._take(poll, live, comes_back())
        except OSError:
            self.pause(LOOK_EVERY)

    def _move(self, stream, event):
        """Reads and sends once. False when the connection is over."""
        connection = stream.connection
        try:
            if event & select.EPOLLIN:
                count = connection.recv_into(_scratch)
                if count == 0:
                    return False
                self._counts[RECEIVED] += count
            if event & select.EPOLLOUT:
                count = connection.send(stream.next_part())
                self._counts[SENT] += count
                stream.sent(count)
            return not event & (select.EPOLLHUP | select.EPOLLERR)
        except BlockingIOError:
            return True
        except OSError:
            return False

    def say(self, connection, data):
        """Sends a little on a connection that may be gone. False when it is."""
        try:
            self._counts[SENT] += connection.send(data)
            return True
        except BlockingIOError:
            return True
        except OSError:
            return False

    @staticmethod
    def reset(connection):
        """Closes a connection by a reset, so that neither end waits for anything."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
