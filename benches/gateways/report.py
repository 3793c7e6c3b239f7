"""The table of the results."""

from statistics import median

from comparison.tables import table

EXPLAINED = """\
The gateway, with all its threads and processes, has one core. Clients and the application ([origin.rs]({origin}), which answers at
once) share another, and are the same for both. Medians of {rounds} rounds of {seconds:g} s, with the least and the most in
parentheses; `times` is how many times better percore was in the same round, and below 1 where Pushpin was better. Messages have
125 B of text if clients send them, and 10 B if the application does. A dash stands where it failed, for the reason below."""


def whole(value):
    """A number of many digits."""
    return f"{value:,.0f}"


def short(value):
    """A number of few."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


class Line:
    """A line of the table: a value of a row, and what it is to be."""

    def __init__(self, row, value, label, form=whole, less=False, target="", holds=None):
        self.row, self.value, self.label, self.form, self.less, self.target = row, value, label, form, less, target
        self._holds = holds

    def holds(self, ours, times):
        """Whether the target is reached, by medians."""
        return self._holds(ours, times)


def lines():
    """All of them."""
    for count in (10, 100, 1000, 10_000):
        yield Line(f"echo-{count}", "per_cpu_second", f"messages there and back for a second of processor time, {count:,} connections",
                   target="20 times", holds=lambda _, times: times >= 20)
    for count in (1000, 10_000):
        yield Line(f"paced-{count}", "per_cpu_second", f"the same at 500 a second, {count:,} connections", target="20 times",
                   holds=lambda _, times: times >= 20)
    yield Line("echo-10000", "slower", "processor time of a message at 10,000 connections over that at 100", short, True,
               "at most 1.3", lambda ours, _: ours <= 1.3)
    for count in (10, 100, 1000, 10_000):
        yield Line(f"echo-{count}", "rate", f"messages there and back a second, {count:,} connections")
    yield Line("echo-10", "p50_ms", "p50 of a message there and back, 10 connections, ms", short, True, "below 0.4",
               lambda ours, _: ours < 0.4)
    yield Line("echo-10", "p99_ms", "p99, ms", short, True)
    yield Line("events", "rate", "events a second to the application", target="30,000", holds=lambda ours, _: ours >= 30_000)
    yield Line("events", "per_cpu_second", "for a second of processor time")
    yield Line("sr", "rate", "`POST /sr` (`/publish/`) a second, pipelined", target="100,000", holds=lambda ours, _: ours >= 100_000)
    yield Line("sr", "per_cpu_second", "for a second of processor time")
    yield Line("post", "rate", "`POST /connections/{id}` a second, pipelined", target="100,000", holds=lambda ours, _: ours >= 100_000)
    yield Line("post", "per_cpu_second", "for a second of processor time")
    yield Line("delivery", "p50_ms", "`/sr` to its delivery at 5,000 a second: p50, ms", short, True)
    yield Line("delivery", "p99_ms", "p99, ms", short, True, "below 5", lambda ours, _: ours < 5)
    yield Line("to-10000", "ms", "one `/sr` to 10,000 connections, to the last, ms", short, True, "below 50", lambda ours, _: ours < 50)
    yield Line("to-10000", "cpu_ms", "processor time of that, ms", short, True)
    yield Line("publish", "rate", "publications a second, each to 100 connections")
    yield Line("publish", "deliveries", "their deliveries a second")
    yield Line("idle", "bytes", "resident bytes of an idle connection, of 10,000", whole, True, "at most 400", lambda ours, _: ours <= 400)


def spread(values, form):
    """Median, least and most."""
    text = form(median(values))
    return text if len(values) == 1 else f"{text} ({form(min(values))} to {form(max(values))})"


def values_of(content, line, server):
    """Those of each round that came to something."""
    rounds = content["rows"].get(line.row, [])
    if line.value == "slower":
        pairs = zip(rounds, content["rows"].get("echo-100", []))
        return [few[server]["per_cpu_second"] / many[server]["per_cpu_second"] for many, few in pairs
                if "per_cpu_second" in many.get(server, {}) and "per_cpu_second" in few.get(server, {})]
    return [one[server][line.value] for one in rounds if line.value in one.get(server, {})]


def times_of(content, line):
    """How many times better percore was, in each round in which both came to something."""
    found = []
    for one in content["rows"].get(line.row, []):
        ours, theirs = (one.get(server, {}).get(line.value) for server in ("percore", "Pushpin"))
        if ours and theirs:
            found.append(theirs / ours if line.less else ours / theirs)
    return found


def markdown(content):
    """The results as a table."""
    rows, failures = [], []
    for line in lines():
        if line.row not in content["rows"]:
            continue
        ours, theirs = (values_of(content, line, server) for server in ("percore", "Pushpin"))
        has_failed = any("failed" in values for one in content["rows"][line.row] for values in one.values())
        if not (ours or theirs or has_failed):
            continue
        times = times_of(content, line)
        target = line.target
        if target and ours and (times or "times" not in target):
            target += ": yes" if line.holds(median(ours), median(times) if times else None) else ": **no**"
        rows.append([line.label, *(spread(values, line.form) if values else "–" for values in (ours, theirs)),
                     spread(times, short) if times else "–", target])
    for name, rounds in content["rows"].items():
        for server in ("percore", "Pushpin"):
            reasons = [one[server]["failed"].split("; it said")[0] for one in rounds if "failed" in one.get(server, {})]
            failures += [f"* `{name}`, {server}, {len(reasons)} of {len(rounds)} rounds: {reasons[0]}"] if reasons else []
    run = content["run"]
    about = (f"{' and '.join(run['servers'])}, {run['measured']}. {run['processor']}, {run['cores']} cores, {run['kernel']}"
             + (f"; {run['note']}." if run.get("note") else "."))
    explained = EXPLAINED.format(origin="peers/src/bin/origin.rs", **run)
    head = ["", "percore", "Pushpin", "times", "to reach"]
    return "\n".join([about, "", explained, "", table(head, rows), *([""] if failures else []), *failures])
