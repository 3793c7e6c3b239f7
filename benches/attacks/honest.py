"""Honest clients: the victim, whose round trips are measured; others, of whom it is counted how many are closed; and
newcomers, of whom it is counted how many are not let in."""

import collections
import select
import socket
import time

from attacks import HONEST, NEWCOMER, wire

EVERY = 0.01
# The victim's messages of an app that bounds what a client may send come from this many connections in turn.
TURNS = {"echo": 1, "chat": 10, "ticker": 10}
# An answer that is still missing this long after the attack counts as having taken until then.
PATIENCE = 3.0
HANDSHAKE_IN = 30.0
RECEIVE_BYTES = 1024 * 1024
# No marker is longer.
MARKER_BYTES = 32
MOST_CLOSE_BYTES = 127
# A Ping without a payload, as the heartbeat sends it.
PING = b"\x89\0"
NEWCOMER_EVERY = 0.1
NEWCOMER_WAITS = 2.0


def connect(server, address=HONEST, receive_buffer=None, within=HANDSHAKE_IN):
    """An upgraded connection, which blocks no more."""
    connection = begin(server, address, receive_buffer, within)
    finish(connection)
    return connection


def begin(server, address, receive_buffer, within):
    """A connection that has asked for its upgrade."""
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.bind((address, 0))
    connection.settimeout(within)
    connection.connect((HONEST, server.port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(server.preface + wire.upgrade(server.path))
    return connection


def finish(connection):
    """Reads the answer to the upgrade."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        part = connection.recv(4096)
        if not part:
            raise ConnectionError("no answer")
        answer += part
    if b" 101 " not in answer:
        raise ConnectionError(answer.split(b"\r\n", 1)[0].decode())
    connection.setblocking(False)


def marker(app, number):
    """What only the answer to message `number` has in it."""
    return b'"Sequence":%d,' % (10**9 + number) if app == "ticker" else b"v%09d;" % number


def message(app, number):
    """A small message that is answered to its sender alone."""
    mark = marker(app, number)
    if app == "chat":
        return wire.frame(wire.leave(mark.decode()), wire.TEXT)
    if app == "ticker":
        return wire.frame(b"Ping:{" + mark + b'"Seconds":1,"Nanos":0}', wire.TEXT)
    if app == "echo":
        return wire.frame(mark, wire.TEXT)
    return wire.frame(mark, wire.PING)


def is_over(part):
    """Whether bytes that came are the last, because of the stream's end or a Close frame."""
    at = part.rfind(b"\x88", max(len(part) - MOST_CLOSE_BYTES, 0))
    return not part or at >= 0 and at + 2 <= len(part) == at + 2 + part[at + 1]


class Line:
    """One of the victim's connections: answers come in the order of the messages."""

    def __init__(self, connection):
        self.connection, self.waiting, self.rest = connection, collections.deque(), b""

    def read(self, app, now, times):
        """Takes what has come. False when the server has closed it."""
        try:
            part = self.connection.recv(RECEIVE_BYTES)
            if PING in part:
                self.connection.send(wire.frame(b"", wire.PONG))
        except BlockingIOError:
            return True
        except OSError:
            return False
        data, at = self.rest + part, 0
        while self.waiting:
            mark = marker(app, self.waiting[0][0])
            found = data.find(mark, at)
            if found < 0:
                break
            at = found + len(mark)
            times.append(now() - self.waiting.popleft()[1])
        # A marker may come in two parts.
        self.rest = data[max(at, len(data) - MARKER_BYTES):]
        return not is_over(part)


def victim(server, start):
    """A message every 10 ms, whether or not the last was answered, so that a stall counts for each that it held up. Gives
    back the round trips in seconds, how many connections were closed, and how many answers never came."""
    now = time.monotonic
    lines = [Line(connect(server)) for _ in range(TURNS.get(server.app, 1))]
    poll = select.epoll()
    by_descriptor = {line.connection.fileno(): line for line in lines}
    for line in lines:
        poll.register(line.connection, select.EPOLLIN)
    times, number, closed = [], 0, 0
    start.is_ready()
    due, sends, deadline = start.wait(), True, None
    while by_descriptor and (sends or any(line.waiting for line in by_descriptor.values())):
        at = now()
        if sends and start.is_over():
            sends, deadline = False, at + PATIENCE
        if deadline and at >= deadline:
            break
        while sends and due <= at:
            line = lines[number % len(lines)]
            if line.connection.fileno() in by_descriptor:
                line.waiting.append((number, due))
                try:
                    line.connection.send(message(server.app, number))
                except OSError:
                    # A socket that is full or gone: its message waits, and shows as an answer that never came.
                    pass
            number, due = number + 1, due + EVERY
        wait = due - now() if sends else PATIENCE / 10
        for descriptor, _ in poll.poll(max(wait, 0)):
            if not by_descriptor[descriptor].read(server.app, now, times):
                by_descriptor.pop(descriptor).connection.close()
                closed += 1
    missing = [now() - sent for line in by_descriptor.values() for _, sent in line.waiting]
    return {"times": times + missing, "closed": closed, "missing": len(missing), "open": len(lines)}


class Crowd:
    """Clients who read: all that comes, or `bytes_per_second` each. They say `hello` once connected, and `later` in the
    middle of the attack; both are made from a client's number."""

    def __init__(self, count, bytes_per_second=None, receive_buffer=None, hello=None, later=None):
        self.count, self.bytes_per_second, self.receive_buffer = count, bytes_per_second, receive_buffer
        self.hello, self.later = hello, later

    def run(self, server, start):
        """Reads until the attack is over. Gives back how many were closed."""
        members = [begin(server, HONEST, self.receive_buffer, HANDSHAKE_IN) for _ in range(self.count)]
        poll = select.epoll()
        live = {}
        for number, member in enumerate(members):
            finish(member)
            if self.hello:
                member.send(wire.frame(self.hello(number), wire.TEXT))
            live[member.fileno()] = member
            poll.register(member, select.EPOLLIN)
        self._settle(poll, live)
        start.is_ready()
        began, closed, said = start.wait(), 0, False
        read_by_all, total = self.count, 0
        while not start.is_over():
            if self.later and not said and time.monotonic() - began >= start.seconds / 2:
                said = True
                for number, member in enumerate(members):
                    if member.fileno() in live:
                        member.send(wire.frame(self.later(number), wire.TEXT))
            if self.bytes_per_second:
                allowed = (time.monotonic() - began) * self.bytes_per_second * read_by_all
                if total > allowed:
                    time.sleep(EVERY)
                    continue
            for descriptor, _ in poll.poll(0.05):
                count = read(live[descriptor], self.bytes_per_second and 65536)
                if count is None:
                    live.pop(descriptor).close()
                    closed += 1
                else:
                    total += count
        # What is still to come, such as the end of a connection that was closed already.
        deadline = time.monotonic() + 0.5
        while not self.bytes_per_second and time.monotonic() < deadline:
            for descriptor, _ in poll.poll(0.05):
                if read(live[descriptor]) is None:
                    live.pop(descriptor).close()
                    closed += 1
        return {"closed": closed, "open": self.count}

    @staticmethod
    def _settle(poll, live):
        """Reads until for a while nothing comes."""
        while True:
            ready = poll.poll(0.5)
            if not ready:
                return
            for descriptor, _ in ready:
                read(live[descriptor])


def read(member, most=None):
    """Reads once, and answers a Ping. Says how much there was; `None` when the connection is over."""
    try:
        part = member.recv(most or RECEIVE_BYTES)
        if is_over(part):
            return None
        if PING in part:
            member.send(wire.frame(b"", wire.PONG))
        return len(part)
    except BlockingIOError:
        return 0
    except OSError:
        return None


def newcomers(server, start):
    """Somebody new every 100 ms, with one message and its answer. Gives back how many of them did not get that far."""
    start.is_ready()
    start.wait()
    tried = failed = 0
    while not start.is_over():
        tried += 1
        began = time.monotonic()
        failed += not _comes_in(server, tried)
        time.sleep(max(began + NEWCOMER_EVERY - time.monotonic(), 0))
    return {"closed": failed, "open": tried}


def _comes_in(server, number):
    try:
        with connect(server, NEWCOMER, within=NEWCOMER_WAITS) as connection:
            connection.settimeout(NEWCOMER_WAITS)
            connection.send(message(server.app, number))
            return marker(server.app, number) in connection.recv(RECEIVE_BYTES)
    except OSError:
        return False
