"""Floods: the same bytes again and again, on one connection or on a hundred, as fast as the server takes them."""

from attacks import wire
from attacks.field import Stream

# What percore offers by default, and a window as small as it may be.
DEFLATE = "permessage-deflate"
SMALL_WINDOW = "permessage-deflate; server_max_window_bits=9"
# A block is about as long as what percore reads at once, or longer.
BLOCK_BYTES = 480_000
# The largest message that is let through by default, and one that is not.
LARGE_BYTES = 1_000_000
TOO_LARGE_BYTES = 16 << 20


def many(unit):
    """As many of them as make a block."""
    return unit * max(BLOCK_BYTES // len(unit), 1)


def http(path):
    """Requests for a path, as short as they can be."""
    return many(b"GET %s HTTP/1.1\nHost:\n\n" % path)


def text(payload):
    """The frame of a text message."""
    return wire.frame(payload, wire.TEXT)


def fragments(payload):
    """A message in fragments of one byte, or of none."""
    parts = [payload[at:at + 1] for at in range(len(payload))] or [b""] * 80_000
    first = wire.frame(parts[0], wire.TEXT, final=False)
    middle = b"".join(wire.frame(part, wire.CONTINUATION, final=False) for part in parts[1:-1])
    return first + middle + wire.frame(parts[-1], wire.CONTINUATION)


def rooms():
    """Joins and leaves of rooms with long names."""
    names = [f"{number:0128d}" for number in range(500)]
    return b"".join(text(wire.join(name)) + text(wire.leave(name)) for name in names)


def symbols(of, name):
    """A wish for symbols that nobody else has."""
    return text(wire.tickers(f"{name}{number:05d}" for number in of))


def other_symbols():
    """Wishes for a thousand of two thousand made-up symbols, never the same twice."""
    return b"".join(symbols(range(start, start + 1000), "S") for start in range(0, 1000, 10))


# Each makes its block, what the connection offers, and whether it speaks HTTP.
KINDS = {
    "tiny": lambda: many(wire.frame(b"")),
    "small": lambda: many(wire.frame(b"x" * 125)),
    "ping": lambda: many(wire.frame(b"", wire.PING)),
    "pong": lambda: many(wire.frame(b"", wire.PONG)),
    "large": lambda: wire.frame(b"x" * LARGE_BYTES),
    "text": lambda: text(b"x" * LARGE_BYTES),
    "fragments": lambda: fragments(b""),
    "bytes": lambda: fragments(b"x" * 65_000),
    "bomb": lambda: wire.deflated(bytes(LARGE_BYTES), wire.BINARY) * 30,
    "bomb-16M": lambda: wire.deflated(bytes(TOO_LARGE_BYTES), wire.BINARY) * 30,
    "bomb-window9": lambda: wire.deflated(bytes(LARGE_BYTES), wire.BINARY) * 150,
    "final-blocks": lambda: wire.with_final_blocks(900_000, 20_000),
    "code-tables": lambda: wire.with_code_tables(5_000),
    "http": lambda: http(b"/healthz"),
    "http-404": lambda: http(b"/xyzzyx"),
    "ping1": lambda: http(b"/ping1"),
    "submit": lambda: many(text(wire.submit("a"))),
    "submit-deflate": lambda: wire.deflated(wire.submit("a" * 65_000)) * 1_000,
    "keys": lambda: wire.deflated(wire.many_keys(40_000)) * 6,
    "chat-error": lambda: many(text(b"x")),
    "rooms": rooms,
    "ticker-ping": lambda: many(text(b'Ping:{"Sequence":1,"Seconds":1,"Nanos":0}')),
    "ticker-sets": other_symbols,
    "metrics": lambda: http(b"/metrics"),
}
OFFERS = {"bomb": DEFLATE, "bomb-16M": DEFLATE, "bomb-window9": SMALL_WINDOW, "final-blocks": DEFLATE,
          "code-tables": DEFLATE, "submit-deflate": DEFLATE, "keys": DEFLATE}
HTTP = ("http", "http-404", "ping1", "metrics")


def flood(kind, reads=True, part=None, hello=b""):
    """An attack by a flood of a kind. Whoever is closed comes back, and does not wait for the answer to its upgrade."""

    def attack(field):
        block, offer = KINDS[kind](), OFFERS.get(kind)
        size = {} if part is None else {"part": part}
        port = field.server.admin_port if kind == "metrics" else None

        def again():
            first = b"" if kind in HTTP else wire.upgrade(field.path, offer) + hello
            return Stream(field.connect(port=port), block, first, reads, **size)

        if kind in HTTP:
            streams = [again() for _ in range(field.share)]
        else:
            streams = [Stream(connection, block, hello, reads, **size) for connection in field.upgraded(deflate=offer)]
        field.begin()
        field.pump(streams, again)

    return attack


def bursts(data, every, offer=None):
    """The same bytes on a connection of its own each time: those that the server closes for it are no matter."""

    def attack(field):
        whole = data()
        field.begin()
        while field.left():
            try:
                connection, = field.upgraded(1, offer)
                field.send(connection, whole)
                field.pause(every)
                connection.close()
            except OSError:
                field.pause(every)

    return attack
