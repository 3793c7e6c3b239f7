"""Attacks that are more than a flood."""

import os
import signal

from attacks import wire
from attacks.field import Stream
from attacks.floods import DEFLATE, LARGE_BYTES, KINDS, symbols, text

ROOM = "g"
# The longest message by default.
MOST_BYTES = 1 << 20
# A window so small that what is unread stays with the server.
TINY_WINDOW = 4096
TRICKLE_EVERY = 0.1
CHURN_WAITS = 1.0


def nothing(field):
    """The harness's own noise: nobody attacks."""
    field.begin()
    field.pause(field.left())


def burning(field):
    """Its noise while the attackers' core is busy: they compute, and send nothing."""
    field.begin()
    while field.left():
        sum(range(10_000))


def unread_joins(field):
    """Large answers to small requests, and nobody reads them."""
    block = text(wire.join(ROOM)) * 7_000
    connections = field.upgraded(receive_buffer=TINY_WINDOW)
    # Pongs, which cost nothing, have the kernel make room for much at once.
    field.prepare([Stream(connection, b"", KINDS["pong"]() * 16, reads=False) for connection in connections])
    streams = [Stream(connection, block, reads=False) for connection in connections]
    field.begin()
    field.pump(streams)


def mixed_submits(field):
    """Messages for everyone, compressed and as they are by turns."""
    block = (wire.deflated(wire.submit("a" * 65_000)) + text(wire.submit("b"))) * 1_000
    streams = [Stream(connection, block) for connection in field.upgraded(deflate=DEFLATE)]
    field.begin()
    field.pump(streams)


def escapes(field):
    """Control characters for everyone, five messages a second: each of 660 bytes, which become 390,000 for each listener."""
    message = wire.deflated(wire.submit("\x01" * 65_000))
    connection, = field.upgraded(deflate=DEFLATE)
    field.begin()
    while field.left():
        field.send(connection, message)
        field.pause(0.2)


def wide_sets(field):
    """A thousand symbols for each connection, others for each, of which every tick tells."""
    connections = field.upgraded(deflate=DEFLATE)
    streams = []
    for number, connection in enumerate(connections):
        # Each takes every ninth but for a few.
        wish = symbols(((number * 31 + at * 9 + at % (number + 2)) % 9_000 for at in range(1000)), "S")
        streams.append(Stream(connection, b"", wish))
    field.begin()
    field.pump(streams)


def promises(field):
    """The first byte of a message of 1 MiB on every connection."""
    hold(field, [(part_of(MOST_BYTES, 1), b"")])


def broadcast_bursts(field):
    """A quarter of a megabyte of the smallest messages for all subscribers, once in a second."""
    connection, = field.upgraded()
    burst = wire.frame(b"") * (256 * 1024 // 6)
    field.begin()
    while field.left():
        field.send(connection, burst)
        field.pause(1)


def pings_within_a_message(field):
    """Half of a binary message, and Pings for ever before the other half."""
    first, block = wire.frame(b"x" * (LARGE_BYTES // 2), final=False), KINDS["ping"]()
    streams = [Stream(connection, block, first, reads=False) for connection in field.upgraded()]
    field.begin()
    field.pump(streams)


def part_of(size, sent, opcode=wire.TEXT):
    """The beginning of a message in one frame."""
    return wire.header(opcode, size) + wire.masked(b"x" * sent)


def half_an_echo(field):
    """Half of a binary message in one frame, which goes back as it comes, and then nothing."""
    half = part_of(LARGE_BYTES, LARGE_BYTES // 2, wire.BINARY)
    hold(field, [(half, b"")])


def hold(field, kinds, offer=None, receive_buffer=TINY_WINDOW):
    """Connections of which each sends something first, then something else without end, and reads nothing."""
    connections = field.upgraded(deflate=offer, receive_buffer=receive_buffer)
    streams = []
    for number, connection in enumerate(connections):
        first, block = kinds[number % len(kinds)]
        streams.append(Stream(connection, block, first, reads=False))
    field.begin()
    field.pump(streams)
    field.pause(field.left())


def halves_and_backlogs(field):
    """On every other connection half of a message of 1 MiB, on the others as much as the server lets lie unread."""
    half = part_of(MOST_BYTES, MOST_BYTES // 2)
    hold(field, [(half, b""), (b"", text(b"y" * 60_000))])


def halves(field):
    """All but the end of a message of 1 MiB on every connection."""
    hold(field, [(part_of(MOST_BYTES, MOST_BYTES - 1), b"")])


def unread_windows(field):
    """A window for each direction on every connection, where the server allows it, and nothing more."""
    message = wire.deflated(bytes(range(256)) * 16)
    hold(field, [(message, b"")], "permessage-deflate; client_max_window_bits", receive_buffer=None)


def slow_heads(field):
    """Requests of 7 KB that go on by a byte now and then."""
    trickle(field, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 7_000)


def slow_proxy_headers(field):
    """PROXY headers that go on by a byte now and then."""
    trickle(field, b"PROXY TCP4 ")


def trickle(field, first):
    """The same bytes on all connections, and then a byte each now and then. Whoever is closed comes back."""
    connections = [field.connect() for _ in range(field.share)]
    for connection in connections:
        connection.setblocking(False)
    field.begin()
    live = [connection for connection in connections if field.say(connection, first)]
    while field.left():
        field.pause(TRICKLE_EVERY)
        live = [connection for connection in live if field.say(connection, b"1")]
        while len(live) < field.share and field.left():
            connection = field.connect()
            connection.setblocking(False)
            field.say(connection, first)
            live.append(connection)


def squat(field):
    """Connections without an upgrade that ask for something now and then, for ever."""
    live = []
    field.begin()
    while field.left():
        while len(live) < field.share and field.left():
            connection = field.connect()
            connection.setblocking(False)
            live.append(connection)
        live = [connection for connection in live if field.say(connection, wire.request("/healthz"))]
        field.pause(TRICKLE_EVERY)


def upgrades(field):
    """Upgrades that end at once by a reset."""
    churn(field, lambda _: wire.upgrade(field.path))


def connects(field):
    """Connections that end at once by a reset, after their first byte."""
    churn(field, lambda _: b"G")


def members(field):
    """Members of a room of their own, with a long name, that come and go."""
    churn(field, lambda number: wire.upgrade(field.path) + text(wire.join(f"{number:0128d}")))


def churn(field, first):
    """Connects, sends, waits for the first bytes of an answer where one is due, and resets."""
    number = 0
    field.begin()
    while field.left():
        number += 1
        data = first(number)
        try:
            connection = field.connect()
            connection.settimeout(CHURN_WAITS)
            connection.sendall(data)
            field.count_sent(len(data))
            if len(data) > 1:
                connection.recv(4096)
            field.reset(connection)
        except OSError:
            pass


def fill_market(field):
    """Made-up symbols until there can be no more, and a little again each second so that they stay."""
    connection, = field.upgraded()
    wishes = b"".join(symbols(range(start, start + 1000), "X") for start in range(0, 10_000, 1000))
    field.begin()
    while field.left():
        field.send(connection, wishes)
        field.pause(1)


def stop_process(field):
    """No attack but an accident: the process is held up for longer than clients may be silent."""
    field.begin()
    os.kill(field.server.pid, signal.SIGSTOP)
    try:
        field.pause(3)
    finally:
        os.kill(field.server.pid, signal.SIGCONT)
    field.pause(field.left())
