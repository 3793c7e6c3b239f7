"""Clients: WebSocket connections that send, or read what comes, and requests of an application, pipelined."""

import contextlib
import select
import socket
import time

from attacks import wire
from comparison.measure import Failed

# Handshakes under way at a time, and how long one may take.
AT_A_TIME = 100
PATIENCE = 60.0
READ_BYTES = 1 << 16
# Requests that nobody has answered yet, on a connection each.
MOST_UNDER_WAY = 1000


def connect(port):
    """A connection without Nagle's delay."""
    stream = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def open_all(port, paths):
    """WebSocket connections, one for each path."""
    streams = []
    for start in range(0, len(paths), AT_A_TIME):
        some = []
        for path in paths[start:start + AT_A_TIME]:
            some.append(connect(port))
            some[-1].sendall(wire.upgrade(path))
        for stream in some:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                piece = stream.recv(4096)
                if not piece:
                    raise Failed("a connection was closed in its handshake")
                head += piece
            if not head.startswith(b"HTTP/1.1 101"):
                raise Failed(f"a handshake was answered by {head[:30]!r}")
            stream.setblocking(False)
        streams += some
    return streams


def close_all(streams):
    """Ends connections."""
    for stream in streams:
        stream.close()


class Readers:
    """WebSocket connections that messages come to."""

    def __init__(self, port, paths):
        self._streams = {stream.fileno(): stream for stream in open_all(port, paths)}
        self._poll = select.epoll()
        for number in self._streams:
            self._poll.register(number, select.EPOLLIN)

    def read(self, timeout):
        """What has come, by connection, after waiting up to `timeout` seconds for something."""
        for number, _ in self._poll.poll(timeout, len(self._streams)):
            piece = self._streams[number].recv(READ_BYTES)
            if not piece:
                raise Failed("a connection was closed")
            yield piece

    def read_bytes(self, count, within):
        """Reads until this many bytes have come in all. Returns how many."""
        deadline, have = time.monotonic() + within, 0
        while have < count and time.monotonic() < deadline:
            have += sum(map(len, self.read(0.1)))
        return have

    def arrival(self, within):
        """Waits until something has come to each of them, without reading it; returns when that was."""
        deadline, left = time.monotonic() + within, len(self._streams)
        while left and time.monotonic() < deadline:
            left -= len(self._poll.poll(0.1, len(self._streams)))
        at = time.monotonic()
        if left:
            raise Failed(f"nothing came to {left} of {len(self._streams)} connections within {within:g} s")
        return at

    def tell_once(self, once):
        """Whether of each connection it is told only once that something has come."""
        for number in self._streams:
            self._poll.modify(number, select.EPOLLIN | (select.EPOLLONESHOT if once else 0))

    def close(self):
        """Ends them."""
        self._poll.close()
        close_all(self._streams.values())


class Floods:
    """WebSocket connections that send without waiting for anything."""

    def __init__(self, port, count, size):
        self._streams = {stream.fileno(): stream for stream in open_all(port, ["/"] * count)}
        self._block = wire.frame(b"x" * size, wire.TEXT) * 32
        self._sent = dict.fromkeys(self._streams, 0)
        self._poll = select.epoll()
        for number in self._streams:
            self._poll.register(number, select.EPOLLIN | select.EPOLLOUT)

    def run(self, seconds):
        """Sends what the sockets take."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for number, event in self._poll.poll(0.05, len(self._streams)):
                stream = self._streams[number]
                if event & select.EPOLLIN and not stream.recv(READ_BYTES):
                    raise Failed("a connection was closed")
                if event & select.EPOLLOUT:
                    at = self._sent[number]
                    self._sent[number] = (at + stream.send(self._block[at:])) % len(self._block)

    def close(self):
        """Ends them."""
        self._poll.close()
        close_all(self._streams.values())


class Pipe:
    """Connections of an application, each with several requests under way."""

    def __init__(self, port, connections, request):
        self._port = port
        # One answer as a sample: all are as long.
        self._streams = [connect(port)]
        self._streams[0].sendall(request)
        answer = self._receive(self._streams[0], 1)
        self._length = len(answer)
        self.keeps = b"connection: close" not in answer.lower() and answer.startswith(b"HTTP/1.1")
        if self.keeps:
            self._streams += [connect(port) for _ in range(connections - 1)]

    @staticmethod
    def _receive(stream, number, length=None):
        data = bytearray()
        while True:
            piece = stream.recv(READ_BYTES)
            data += piece
            is_whole = len(data) >= number * length if length else is_answer(data)
            if is_whole or not piece:
                break
        if data.count(b"HTTP/1.1 200") + data.count(b"HTTP/1.0 200") != number:
            raise Failed(f"requests were answered by {bytes(data[:200])!r}")
        return bytes(data)

    def run(self, requests, seconds, then=lambda: None):
        """Makes requests, which come in batches, over and over. Returns how many were answered; calls `then` after each batch."""
        end, answered, under_way = time.monotonic() + seconds, 0, []
        batches, turn = [(len(batch), b"".join(batch)) for batch in requests], 0
        if not self.keeps:
            return self._one_by_one(requests, end, then)
        while time.monotonic() < end:
            for stream in self._streams:
                number, content = batches[turn % len(batches)]
                turn += 1
                if len(under_way) == len(self._streams):
                    answered += self._answers(under_way.pop(0))
                stream.sendall(content)
                under_way.append((stream, number))
                then()
        return answered + sum(map(self._answers, under_way))

    def sender(self):
        """What makes requests without waiting for their answers."""
        return self._sender_on_one() if self.keeps else self._sender_on_many()

    def _sender_on_one(self):
        stream, unsent = self._streams[0], bytearray()
        stream.setblocking(False)

        def send(requests):
            unsent.extend(b"".join(requests))
            with contextlib.suppress(BlockingIOError):
                del unsent[:stream.send(unsent)]
            with contextlib.suppress(BlockingIOError):
                stream.recv(READ_BYTES)

        return send

    def _sender_on_many(self):
        def send(requests):
            for request in requests:
                self._streams.append(connect(self._port))
                self._streams[-1].sendall(request)
            # The server has closed those that it has answered.
            if len(self._streams) > MOST_UNDER_WAY:
                self._streams.pop(0).close()

        return send

    def send_one(self, request):
        """Makes a request, and does not wait for its answer."""
        if self.keeps:
            stream = self._streams[0]
        else:
            stream = connect(self._port)
            self._streams.append(stream)
        stream.sendall(request)

    def _answers(self, one):
        stream, number = one
        self._receive(stream, number, self._length)
        return number

    def _one_by_one(self, requests, end, then):
        """Makes them on a connection each, as the server closes it."""
        flat, answered = [request for batch in requests for request in batch], 0
        while time.monotonic() < end:
            with connect(self._port) as stream:
                stream.sendall(flat[answered % len(flat)])
                self._receive(stream, 1)
            answered += 1
            then()
        return answered

    def close(self):
        """Ends them."""
        close_all(self._streams)


def is_answer(data):
    """Whether these bytes are an answer to its end."""
    head, separator, content = bytes(data).partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(separator) and bool(lengths) and len(content) >= int(lengths[0])
