"""The cells: each is one load that every server gets."""

from dataclasses import dataclass

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZES = [20, 125, KIB, 16 * KIB, MIB]
IN_FLIGHT = [1, 32]
CONNECTIONS = [100, 10_000]
GROWTH = [100, 1_000, 5_000, 10_000, 19_000]
# Messages a second, which every server here can do with a core: about half of it.
STEADY_RATE = 60_000
# What is under way lies in memory, of the load or the server or between them.
MOST_BYTES_IN_FLIGHT = 4 * GIB


def size_name(size):
    """20 B, 16 KiB, 1 MiB."""
    for unit, name in ((MIB, "MiB"), (KIB, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


@dataclass(frozen=True)
class Cell:
    """A workload of `percore bench` with its parameters. `servers` of none means all."""

    kind: str
    workload: str = "echo"
    connections: int = 100
    in_flight: int = 1
    size: int = 125
    deflate: bool = False
    servers: tuple = ()
    # Messages a second of all connections together; none is a closed loop.
    rate: int = 0

    @property
    def name(self):
        """Its name in the results."""
        parts = [self.kind]
        if self.kind in ("echo", "deflate"):
            parts.append(size_name(self.size).replace(" ", ""))
        if self.kind == "echo":
            parts.append(f"{self.in_flight}-in-flight")
        return "-".join(parts + [str(self.connections)])

    def suits(self, server):
        """Whether a server takes part."""
        if self.servers:
            return server.name in self.servers
        if self.deflate:
            return server.deflate
        # Raw TCP has no handshake, and nothing that idles.
        return self.workload == "echo" or server.scheme == "ws"

    def stretch(self):
        """How many times longer than others it takes until the load is steady: a turn of all messages takes seconds."""
        return 4 if self.connections * self.in_flight * self.size > GIB else 1

    def load(self, seconds):
        """Arguments of `percore bench` but for the address."""
        warmup = (0.5 if self.connections <= 1_000 else 1) * self.stretch()
        arguments = [self.workload]
        if self.workload == "echo":
            arguments += ["--rate", str(self.rate)] if self.rate else ["--in-flight", str(self.in_flight)]
            arguments += ["--size", str(self.size)]
            arguments += ["--text", "--deflate"] if self.deflate else ["--binary"]
        if self.workload == "idle":
            arguments += ["--echo"]
        duration = seconds * self.stretch()
        return arguments + ["--connections", str(self.connections), "--duration", f"{duration * 1000:.0f}ms",
                            "--warmup", f"{warmup * 1000:.0f}ms"]


def echo_cells():
    """The grid, and what of it is left out."""
    cells, left_out = [], []
    for connections in CONNECTIONS:
        for in_flight in IN_FLIGHT:
            for size in SIZES:
                fits = connections * in_flight * size <= MOST_BYTES_IN_FLIGHT
                (cells if fits else left_out).append(Cell("echo", "echo", connections, in_flight, size))
    return cells, left_out


def all_cells():
    """Everything that is measured, in the order of the tables."""
    return echo_cells()[0] + [
        Cell("idle", "idle", 10_000),
        Cell("handshakes", "connect", 100),
        Cell("deflate", size=KIB, deflate=True),
        Cell("deflate", size=16 * KIB, deflate=True),
    ] + [
        Cell(kind, connections=connections, servers=("raw", "percore"), rate=rate)
        for kind, rate in (("growth", 0), ("steady", STEADY_RATE)) for connections in GROWTH
    ]


def quick_cells():
    """A few cells that show whether all works."""
    return [
        Cell("echo"),
        Cell("echo", in_flight=32),
        Cell("echo", size=16 * KIB),
        Cell("idle", "idle", 1_000),
        Cell("handshakes", "connect", 100),
        Cell("deflate", size=KIB, deflate=True),
    ]


def cell_named(name):
    """The cell of a name, as the results have it."""
    return next(cell for cell in all_cells() + quick_cells() if cell.name == name)
