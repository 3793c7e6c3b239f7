"""What the results say: tables, and whether targets are reached. A closer race than the rounds' own spread is none."""

import statistics

from comparison.tables import quantity, table

from hubs.rows import (BACK, COMMON_RATE, CONNECTIONS, DEPTHS, IDLE, KEPT, OVERLOADED, SUBSCRIBERS, per_cpu, per_second)
from hubs.servers import LIMIT, NCHAN, OURS

BEGIN, END = "<!-- channels: begin -->", "<!-- channels: end -->"
# Rounds differ by so much here.
LEVEL = 1.15


def milliseconds(value):
    """Seconds as ms."""
    return f"{value * 1e3:.2f} ms" if value < 0.1 else f"{value * 1e3:,.0f} ms"


def plain_bytes(value):
    """Bytes."""
    return f"{value:,.0f}"


def seconds_of(value):
    """Seconds."""
    return f"{value:.2f} s"


class Results:
    """The rounds of each row and server."""

    def __init__(self, content):
        self.run = content["run"]
        self.rows = {row["row"]: row["rounds"] for row in content["rows"]}

    def values(self, row, hub, value):
        """A value of each round that came to something."""
        rounds = (one.get(hub) for one in self.rows.get(row, []))
        return [value(one) for one in rounds if one and "failed" not in one]

    def median(self, row, hub, value):
        """The median, or nothing."""
        values = self.values(row, hub, value)
        return statistics.median(values) if values else None

    def ratio(self, row, value, hub, other, other_row=None):
        """The median of the ratios of a hub to another, round by round."""
        pairs = zip(self.rows.get(row, []), self.rows.get(other_row or row, []))
        good = [(one.get(hub), two.get(other)) for one, two in pairs]
        ratios = [value(one) / value(two) for one, two in good
                  if one and two and "failed" not in one and "failed" not in two]
        return statistics.median(ratios) if ratios else None

    def hubs(self, rows):
        """Who took part in one of the rows, in the order of the first."""
        found = {}
        for row in rows:
            for one in self.rows.get(row, []):
                found.update(dict.fromkeys(one))
        order = list(self.run["servers"])
        return sorted(found, key=order.index)

    def spread(self, row, hub, value, form):
        """Median, and from least to most."""
        values = self.values(row, hub, value)
        return f"{form(statistics.median(values))} ({form(min(values))} to {form(max(values))})" if values else "–"

    def grid(self, labels, value, form, best):
        """A table with a line for each row and a column for each server; the best server in bold."""
        hubs, lines = self.hubs(labels), []
        for row, label in labels.items():
            if row not in self.rows:
                continue
            medians = {hub: self.median(row, hub, value) for hub in hubs}
            found = [median for hub, median in medians.items() if median is not None and hub != LIMIT]
            cells = []
            for hub in hubs:
                text = self.spread(row, hub, value, form)
                is_best = found and medians[hub] is not None and hub != LIMIT and form(medians[hub]) == form(best(found))
                cells.append(f"**{text}**" if is_best and len(found) > 1 else text)
            lines.append([label, *cells])
        return table(["", *hubs], lines) if lines else ""


def best_peer(results, row, value, best):
    """The peer with the best median."""
    peers = [hub for hub in results.hubs([row]) if hub not in (OURS, LIMIT)]
    medians = {hub: results.median(row, hub, value) for hub in peers}
    medians = {hub: median for hub, median in medians.items() if median is not None}
    return best(medians, key=medians.get) if medians else None


def p99(result):
    """Of the latencies."""
    return result["p99"]


def targets(results):
    """Each target, what was measured, and whether that is enough."""
    lines = []

    def add(what, measured, is_reached):
        if measured is not None:
            lines.append([what, measured, "reached" if is_reached else "**missed**"])

    for count in SUBSCRIBERS:
        row = f"fan-out-{count}"
        ratio = results.ratio(row, per_cpu, OURS, LIMIT)
        if ratio:
            add(f"fan-out to {count}: 0.95 of a bare loop of writes", f"{ratio:.2f}", ratio >= 0.95)
        for peer in (hub for hub in results.hubs([row]) if hub not in (OURS, LIMIT)):
            ratio = results.ratio(row, per_cpu, OURS, peer)
            if ratio:
                word = "" if ratio >= LEVEL else ", which is level" if ratio > 1 / LEVEL else ""
                add(f"fan-out to {count}: ahead of {peer}", f"{ratio:.2f} times{word}", ratio >= LEVEL)
    for count in SUBSCRIBERS:
        ratio = results.ratio(f"latency-{count}", p99, OURS, NCHAN)
        if ratio:
            add(f"p99 to {count}: half of nchan's", f"{ratio:.2f}", ratio <= 0.5)
    row = f"overload-{OVERLOADED}"
    peer = best_peer(results, row, per_second, max)
    if peer and results.median(row, OURS, per_second):
        ratio = results.ratio(row, per_second, OURS, peer)
        closed = max(results.values(row, OURS, lambda one: one["closed"]))
        add(f"overload: 4 times the deliveries of the best peer ({peer}), no client closed", f"{ratio:.1f} times, {closed} closed",
            ratio >= 4 and closed == 0)
    for depth, wanted in zip(DEPTHS, (1.2, 3)):
        ratio = results.ratio(f"publish-{depth}", per_cpu, OURS, NCHAN)
        if ratio:
            add(f"HTTP publish, {depth} under way: {wanted} times nchan's", f"{ratio:.2f} times", ratio >= wanted)
    idle = results.median("idle", OURS, lambda one: one["bytes"])
    if idle:
        add("a subscribed idle connection: 600 B", f"{idle:,.0f} B", idle <= 600)
    for row, label in {f"fan-out-{SUBSCRIBERS[0]}": f"fan-out to {SUBSCRIBERS[0]}", "publish-1": "HTTP publish, 1 under way",
                       "publish-16": "HTTP publish, 16 under way"}.items():
        ratio = results.ratio(row, per_cpu, OURS, OURS, f"{row}-history")
        if ratio:
            add(f"history on costs 1.5 times history off: {label}", f"{ratio:.2f} times", ratio <= 1.5)
    back = results.median("recover", OURS, lambda one: one["seconds"])
    if back:
        add(f"{BACK:,} clients recover {KEPT} messages each: 2 s", f"{back:.2f} s", back < 2)
    return table(["target", "measured", ""], lines)


def failures(results):
    """Rounds that came to nothing."""
    lines = []
    for row, rounds in results.rows.items():
        for hub in results.hubs([row]):
            why = [one[hub]["failed"] for one in rounds if "failed" in one.get(hub, {})]
            if why:
                lines.append(f"* {row}: {hub}, {len(why)} of {len(rounds)} ({' '.join(why[-1].split())[:200]})")
    return "Rounds that failed, and count nowhere:\n\n" + "\n".join(lines) if lines else ""


def markdown(content):
    """The section, without its heading."""
    results, run = Results(content), content["run"]
    fan_out = {f"fan-out-{count}": f"{count:,}" for count in SUBSCRIBERS}
    latency = {f"latency-{count}": f"{count:,}" for count in SUBSCRIBERS}
    publish = {f"publish-{depth}{end}": f"{depth} under way{label}" for depth in DEPTHS
               for end, label in (("", ""), ("-history", f", {KEPT} kept"))}
    overload = {f"overload-{OVERLOADED}": "deliveries a second"}
    lag, closed = {f"overload-{OVERLOADED}": "p99"}, {f"overload-{OVERLOADED}": "closed"}
    body = lambda text: text.split("\n", 2)[2] if text.count("\n") > 1 else ""
    overloaded = results.grid(overload, per_second, quantity, max)
    if overloaded:
        overloaded += "\n" + body(results.grid(lag, p99, milliseconds, min)) + "\n" + \
            body(results.grid(closed, lambda one: one["closed"], plain_bytes, min))
    offered = results.median(f"overload-{OVERLOADED}", OURS, lambda one: one["wanted"] / one["seconds"])
    offered = f": {quantity(offered)} deliveries a second are asked for" if offered else ""
    parts = [
        f"{run['measured']}, {run['rounds']} rounds of {run['seconds']:g} s in turns; {run['processor']}, {run['cores']} cores, "
        f"{run['kernel']}; server on one core, load on another. {run['note']}".strip(),
        table(["server", "version"], [[name, version] for name, version in run["servers"].items()]),
        "".join(f"Left out: {name} ({why}). " for name, why in run["left_out"].items()).strip(),
        "### Targets", targets(results),
        "### Distinct messages, each published when all subscribers have the one before: deliveries for a second of the "
        "server's processor time", results.grid(fan_out, per_cpu, quantity, max),
        f"### The 99th percentile from publish to delivery, at {COMMON_RATE:,} deliveries a second",
        results.grid(latency, p99, milliseconds, min),
        f"### Three times what nchan manages, to {OVERLOADED} subscribers{offered}", overloaded,
        f"### HTTP publishes over {CONNECTIONS} connections without subscribers, for a second of the server's processor time",
        results.grid(publish, per_cpu, quantity, max),
        f"### Resident bytes for each of {IDLE:,} subscribed idle connections",
        results.grid({"idle": "bytes"}, lambda one: one["bytes"], plain_bytes, min),
        f"### {BACK:,} clients that connect at once and recover {KEPT} messages each",
        results.grid({"recover": "until the last has them"}, lambda one: one["seconds"], seconds_of, min),
        failures(results),
    ]
    kept = []
    for part, following in zip(parts, [*parts[1:], ""]):
        if part and not (part.startswith("### ") and not following):
            kept.append(part)
    return "\n\n".join(kept)
