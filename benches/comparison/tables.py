"""The section of benches/README.md that the results fill."""

import os
from collections import Counter

from comparison import results
from comparison.grid import STEADY_RATE, echo_cells, size_name
from comparison.results import CellResults
from comparison.servers import ALL, RAW

GROWTH_EXPLAINED = """\
As fast as possible, every message waits for all others: with 10,000 connections for 0.1 s, longer than the 40 ms after
which TCP acknowledges on its own what has not been answered. So the kernel sends twice as many segments (4 for each
message and its echo, where 2 would do; `TcpOutSegs` in `nstat`), for both servers alike. At a rate that leaves the
server time, the number of connections costs little."""

BEGIN, END = "<!-- compare: begin -->", "<!-- compare: end -->"


def quantity(number):
    """Three digits, with k and M: 184k, 4.54M, 2.87k, 443."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if number >= unit * 0.9995:
            return f"{digits(number / unit)}{name}"
    return digits(number)


def digits(number):
    """Three significant digits, without an exponent."""
    return f"{number:.0f}" if number >= 99.95 else f"{number:.1f}" if number >= 9.995 else f"{number:.2f}"


def with_spread(summary, text):
    """The median, and beside it the least and the most of all rounds."""
    return f"{text(summary.median)} ({text(summary.least)} to {text(summary.most)})"


def table(head, rows):
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def row(label, summaries, show, text, best):
    """A row with one value a server, the best in bold, whoever it is."""
    medians = {name: text(summary.median) for name, summary in summaries.items() if summary}
    found = [summary.median for summary in summaries.values() if summary]
    first = text(best(found)) if found else None
    shown = []
    for name, summary in summaries.items():
        value = show(summary, text) if summary else "–"
        shown.append(f"**{value}**" if summary and medians[name] == first else value)
    return [label, *shown]


def median_only(summary, text):
    """The median without the spread."""
    return text(summary.median)


def two_places(number):
    """A ratio."""
    return f"{number:.2f}"


def whole(number):
    """With commas."""
    return f"{number:,.0f}"


def micro(seconds):
    """Microseconds."""
    return f"{digits(seconds * 1e6)} µs"


def mib(number):
    """Bytes as MiB."""
    return digits(number / 2**20)


def summary_of(value):
    """What gets the summary of a value for a server, from the results of a cell."""
    return lambda one, server: one.summary(server, value)


def size_of(cell):
    """A row named after the size of messages."""
    return size_name(cell.size)


def count_of(cell):
    """A row named after the number of connections."""
    return whole(cell.connections)


def label_of(cell):
    """What a row of the grid is called."""
    return f"{cell.connections:,} × {size_name(cell.size)}, {cell.in_flight} in flight"


class Section:
    """Writes the section from results and machine."""

    def __init__(self, found, machine, plots):
        self.found, self.machine, self.plots = found, machine, plots
        self.names = [server.name for server in ALL if server.name in machine["servers"]]

    def measured(self, kind):
        """Results of the cells of a kind."""
        return [one for one in self.found if one.cell.kind == kind]

    def grid(self, kind, names, label, summary, show, text, best):
        """A table with a row for each cell of a kind."""
        rows = []
        for one in self.measured(kind):
            rows.append(row(label(one.cell), {name: summary(one, name) for name in names}, show, text, best))
        return table(["", *names], rows) if rows else ""

    def plot(self, name, title):
        """A plot, where there is one."""
        return f"![{title}](plots/{name}.svg)" if (self.plots / f"{name}.svg").exists() else ""

    def how(self):
        """Where and how it was measured."""
        machine = self.machine
        versions = table(["server", "version"], [[name, machine["servers"][name]] for name in self.names])
        left_out = "".join(f" {name} was left out: {why}." for name, why in machine["left_out"].items())
        cells = echo_cells()[1]
        too_large = "; ".join(label_of(cell) for cell in cells)
        return f"""\
{machine.get("processor")}, {machine.get("cores")} cores, {machine.get("memory_gib")} GiB, {machine.get("kernel")}, \
rustc {machine.get("rustc")}.
The server has one core, the load (`percore bench`, closed loop, binary messages except for deflate) another. All servers
in turn make a round, which is longer where a turn of all messages takes seconds. A value is the median of the rounds,
with the least and the most in parentheses. Bold is the best of a row, even if that is `raw`, which echoes bytes and
knows nothing of WebSocket. Where the server is idle for a part of the time, the load is the limit, and servers differ in
processor time only. A dash stands where nothing was measured, or where every round failed.{left_out}
Not measured, because more than 4 GiB would be under way: {too_large}.

{self.runs()}

{versions}

The Rust peers are compiled for this processor, percore as it is shipped. Each peer is used as its documentation advises;
the programs are in [peers](peers)."""

    def runs(self):
        """When the cells were measured, and how often and how long."""
        runs = {}
        for one in self.found:
            rounds = f"{one.run['measured']}, percore {one.run['percore']}, {len(one.rounds)} rounds of {one.run['seconds']:g} s"
            runs.setdefault(rounds, Counter())[one.cell.kind] += 1
        cells = lambda counts: ", ".join(f"{kind} ({count})" for kind, count in counts.items())
        return table(["measured", "cells"], [[rounds, cells(counts)] for rounds, counts in runs.items()])

    def failures(self):
        """Rounds that came to nothing."""
        lines = []
        for one in self.found:
            for server in self.names:
                failed = one.failures(server)
                if failed:
                    why = " ".join(failed[-1].split())[:200]
                    lines.append(f"* {one.cell.name}: {server}, {len(failed)} of {len(one.rounds)} ({why})")
        return "Rounds that failed, and count nowhere:\n\n" + "\n".join(lines) if lines else ""

    def parts(self):
        """Paragraphs and tables, in order; some may be empty."""
        peers = [name for name in self.names if name != RAW]
        deflating = [server.name for server in ALL if server.deflate and server.name in self.names]
        yield "### How", self.how()
        yield "### Echo: messages a second relative to raw TCP, in the same round", \
            self.grid("echo", peers, label_of, CellResults.ratios_to_raw, with_spread, two_places, max)
        yield "", self.plot("echo-100", "100 connections") + "\n" + self.plot("echo-10000", "10,000 connections")
        yield "### Echo: messages a second", \
            self.grid("echo", self.names, label_of, summary_of(results.rate), with_spread, quantity, max)
        yield "### Echo: processor time of the server for a message", \
            self.grid("echo", self.names, label_of, summary_of(results.cpu), median_only, micro, min)
        yield "### Resident bytes for each idle connection, after one echo each", \
            self.grid("idle", peers, count_of, summary_of(results.memory_per_connection), with_spread, whole, min)
        yield "### Handshakes a second, by connections at a time", \
            self.grid("handshakes", peers, count_of, summary_of(results.handshake_rate), with_spread, quantity, max)
        yield "### Processor time of the server for a handshake", \
            self.grid("handshakes", peers, count_of, summary_of(results.cpu), median_only, micro, min)
        yield "", self.plot("connections", "Idle connections and handshakes")
        yield "### Messages a second with permessage-deflate, text, level 1, no context takeover", \
            self.grid("deflate", deflating, size_of, summary_of(results.rate), with_spread, quantity, max)
        yield f"### Growth: processor time for a message of 125 B, {STEADY_RATE:,} messages a second in all", \
            self.grid("steady", self.growing(), count_of, summary_of(results.cpu), with_spread, micro, min)
        yield "### Growth: the same as fast as possible, one in flight on each connection", \
            self.grid("growth", self.growing(), count_of, summary_of(results.cpu), with_spread, micro, min)
        yield "", GROWTH_EXPLAINED if self.measured("growth") else ""
        yield "### Growth: resident memory of the server, MiB", \
            self.grid("growth", self.growing(), count_of, summary_of(results.memory), median_only, mib, min)
        yield "", self.plot("growth", "Processor time and memory from 100 to 19,000 connections")
        yield "", self.failures()

    def growing(self):
        """Who takes part in the cells of growth."""
        return [name for name in self.names if name in (RAW, "percore")]

    def text(self):
        """The section without its heading."""
        parts = [f"{head}\n\n{body.strip()}" if head else body.strip() for head, body in self.parts() if body.strip()]
        return "\n\n".join(parts)


def are_in(readme, text):
    """Whether that is what stands between the markers."""
    return f"{BEGIN}\n\n{text}\n\n{END}" in readme.read_text()


def put_into(readme, text, begin=BEGIN, end=END):
    """Replaces what stands between the markers, or adds the section at the end."""
    old = readme.read_text()
    if begin not in old:
        old = f"{old.rstrip()}\n\n## Beside other servers\n\n{begin}\n{end}\n"
    before, rest = old.split(begin, 1)
    after = rest.split(end, 1)[1]
    new = readme.with_name(readme.name + ".new")
    new.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")
    os.replace(new, readme)
