"""The rows: every attack, what is attacked, who else is there, and what must hold."""

import functools
from dataclasses import dataclass
from typing import Callable, Optional

from attacks import special, wire
from attacks.floods import DEFLATE, bursts, flood
from attacks.honest import Crowd

# What must hold: the victim's 99th percentile in milliseconds beside one attacker, and beside many.
P99_BESIDE_ONE_MS = 5.0
P99_BESIDE_MANY_MS = 20.0
MIB = 1 << 20
# What may wait for a connection by default: --max-backlog, and a message more; or a message that is not all there.
CONNECTION_BYTES = 5 * MIB
# What the process may take besides: its buffers, and what the allocator keeps. As much may be left at the end.
PROCESS_BYTES = 16 * MIB
# 10 Mbit/s.
SLOW_LINE = 1_250_000


@dataclass
class Row:
    """An attack. `holds` says for how many connections as much may wait as there may; all that attack, unless told otherwise."""

    name: str
    what: str
    app: str
    attack: Callable
    connections: int = 1
    processes: int = 1
    crowd: Optional[Crowd] = None
    newcomers: bool = False
    flags: tuple = ()
    holds: Optional[int] = None
    p99_ms: Optional[float] = None
    # The victim shares the fate of those who are stopped.
    bounds_latency: bool = True
    # Others than the victim: whoever reads slowly may be closed.
    bounds_closed: bool = True
    least_seconds: float = 0.0
    address_space: Optional[int] = None
    # Standard error is left to nobody.
    log_unread: bool = False
    # What honest clients send before all else.
    preface: bytes = b""

    def p99_bound_ms(self):
        """The victim's bound; none where its latency means nothing."""
        if not self.bounds_latency:
            return None
        return self.p99_ms or (P99_BESIDE_ONE_MS if self.connections == 1 else P99_BESIDE_MANY_MS)

    def growth_bound_bytes(self):
        """How much memory the server may take more than before the attack."""
        holds = self.connections if self.holds is None else self.holds
        return holds * CONNECTION_BYTES + PROCESS_BYTES


def _floods():
    """Each kind by one connection, and by a hundred."""
    one = {
        "echo": {
            "tiny": "empty messages",
            "small": "messages of 125 bytes",
            "ping": "Pings",
            "pong": "Pongs",
            "large": "binary messages of 1 MB",
            "text": "text messages of 1 MB",
            "fragments": "messages of 80,000 empty fragments",
            "bytes": "messages of 65,000 fragments of one byte",
            "bomb": "1 MB of zeros in 1 KB",
            "bomb-16M": "16 MiB of zeros in 16 KB, which are refused",
            "bomb-window9": "1 MB of zeros in 1 KB, answered with a window of 512 bytes",
            "final-blocks": "900,000 zeros in 41 KB, and 20,000 ends of their stream",
            "code-tables": "compressed messages that are all Huffman codes",
            "http": "pipelined GET /healthz",
            "http-404": "pipelined GET of an unknown path",
        },
        "chat": {
            "ping1": "pipelined GET /ping1, which all clients receive",
            "submit": "messages for everyone",
            "submit-deflate": "compressed messages of 65,000 bytes for everyone",
            "keys": "compressed messages of 40,000 unknown fields",
            "chat-error": "messages that are answered by an error",
            "rooms": "joins and leaves of 500 rooms",
        },
        "ticker": {
            "ticker-ping": "Pings of the ticker",
            "ticker-sets": "requests for a thousand symbols, different ones each time",
        },
    }
    for app, kinds in one.items():
        for kind, what in kinds.items():
            for count in (1, 100):
                yield Row(f"{kind}-{count}", what, app, flood(kind), count, min(count, 2))


def _deflate():
    """What costs more than its bytes to decompress."""
    for name, zeros, blocks in (("48K", 8 << 20, 20_000), ("408K", 8 << 20, 200_000), ("1M", 900_000, 500_000)):
        data = functools.partial(wire.with_final_blocks, zeros, blocks)
        yield Row(f"final-blocks-{name}", f"a stream that ends {blocks:,} times, after {zeros:,} zeros", "echo",
                  bursts(data, 0.1, DEFLATE))


def _chat():
    """Large answers, many hearers, slow ones."""
    slow = lambda count: Crowd(count, SLOW_LINE, 1 << 17)
    member = lambda count: Crowd(count, hello=lambda number: wire.join(special.ROOM))
    for members in (500, 2_000):
        yield Row(f"joins-{members}", f"JoinRoom of a room of {members:,}, answers unread", "chat",
                  special.unread_joins, crowd=member(members))
    yield Row("joins-500-x20", "the same of 500 by twenty", "chat", special.unread_joins, 20, crowd=member(500))
    yield Row("slow-20", "compressed messages for everyone beside 20 slow listeners", "chat", flood("submit-deflate"),
              crowd=slow(20), holds=21, bounds_closed=False)
    yield Row("slow-20-mixed", "the same, compressed and plain in turn", "chat", special.mixed_submits,
              crowd=slow(20), holds=21, bounds_closed=False)
    yield Row("publishers", "messages for 100 listeners, by a hundred", "chat", flood("submit"), 100, 2, Crowd(100))
    yield Row("escapes", "five messages a second of 65,000 control characters, beside 100 listeners", "chat", special.escapes,
              crowd=Crowd(100), holds=101)
    yield Row("members", "members of rooms of their own that come and go", "chat", special.members, 2, 2, holds=0)


def _memory():
    """What can be held, on one connection and on a thousand."""
    yield Row("half-echo", "half of a binary message on each", "echo", special.half_an_echo, 100)
    yield Row("half-pings", "endless Pings within a message", "echo", special.pings_within_a_message, 100)
    yield Row("thousand", "half of a message of 1 MiB on each, with --as=1G", "echo", special.halves, 1_000, 2,
              address_space=1 << 30)
    yield Row("promises", "the first byte of a message of 1 MiB on each, with --as=1G", "echo", special.promises, 4_500, 2,
              address_space=1 << 30)
    yield Row("thousand-unread", "the same on every other, unread answers on the rest, with --as=1G", "echo",
              special.halves_and_backlogs, 1_000, 2, address_space=1 << 30)
    yield Row("windows", "windows of compression in both directions", "echo", special.unread_windows, 1_000, 2,
              holds=100, flags=("--deflate", "takeover"))
    yield Row("log", "connections come and go, and the log is not read", "echo", special.upgrades, 2, 2, holds=0,
              log_unread=True)


def _connections():
    """Before the upgrade, and without one."""
    yield Row("slow-heads", "requests of 7 KB without an end", "echo", special.slow_heads, 1_000, holds=8)
    yield Row("slow-proxies", "PROXY headers without an end", "echo", special.slow_proxy_headers, 1_000, holds=8,
              flags=("--proxy-protocol", "--trusted-proxy", "127.0.0.0/8"),
              preface=b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
    yield Row("byte-by-byte", "small messages, a byte at a time", "echo", flood("small", part=1), 100, 2)
    yield Row("squat", "266 sockets of one address that send HTTP requests endlessly, with room for 10", "echo",
              special.squat, 266, newcomers=True, holds=0,
              flags=("--max-connections", "10", "--max-connections-per-ip", "2"))
    yield Row("upgrades", "upgrades that end at once", "echo", special.upgrades, 2, 2, holds=0)
    yield Row("connects", "connections that end at once", "echo", special.connects, 2, 2, holds=0)
    yield Row("metrics", "pipelined GET /metrics of the admin listener", "echo", flood("metrics"), 10,
              flags=("--admin", "127.0.0.1:{admin}"))
    yield Row("stopped", "the process is stopped for 3 s, with 2 s of silence allowed", "echo", special.stop_process,
              crowd=Crowd(200), bounds_latency=False, least_seconds=4.5,
              flags=("--heartbeat", "1s", "--heartbeat-timeout", "2s"))


def _ticker():
    """Made-up symbols, and somebody who wants a new one; many symbols for many, none alike."""
    later = lambda number: wire.tickers([f"NEW{number}"])
    yield Row("wide-sets", "a thousand symbols for each of 100, different ones for each, compressed", "ticker", special.wide_sets, 100,
              least_seconds=4.5)
    yield Row("symbols", "10,000 made-up symbols, kept alive; 20 clients want new ones", "ticker", special.fill_market,
               crowd=Crowd(20, later=later))


def all_rows():
    """All of them, the harness's own noise first."""
    yield Row("nothing", "no attack", "echo", special.nothing, holds=0)
    yield Row("busy", "no attack, but the attackers' core is busy", "echo", special.burning, 2, 2, holds=0)
    yield Row("nothing-chat", "no attack", "chat", special.nothing, holds=0)
    yield Row("nothing-ticker", "no attack", "ticker", special.nothing, holds=0)
    yield from _deflate()
    yield from _floods()
    yield from _chat()
    yield from _ticker()
    yield Row("broadcast", "bursts of empty messages for 2,000 subscribers, one of them slow", "example broadcast",
              special.broadcast_bursts, crowd=Crowd(2_000), p99_ms=P99_BESIDE_MANY_MS)
    yield from _memory()
    yield from _connections()
