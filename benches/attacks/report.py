"""What is shown of results: a table for a terminal, and one in Markdown."""

from comparison.tables import table

HEAD = ("row", "connections", "sent", "p50 ms", "p99 ms", "max ms", "peak MiB", "after MiB", "cpu s", "closed", "passed bounds")
EXPLAINED = """\
Beside each attack a client sends a small message every 10 ms to a server on a core of its own; attackers and clients share another.
`sent` is what attackers got rid of, `peak` and `after` the server's resident memory at its highest and after all had gone, `cpu` its processor time
in {seconds:g} s, `closed` how many honest clients lost their connection or did not get one, of how many. A time with `>` is of a message that was still unanswered."""


def size(count):
    """Bytes, in the unit that suits."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}" if count < 1000 * unit else f"{count / unit:.0f} {name}"
    return f"{count} B"


def milliseconds(value, more=False):
    """A time with as many digits as mean something."""
    if value is None:
        return "–"
    return (">" if more else "") + (f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}")


def mib(count):
    """Bytes as MiB."""
    return "–" if count is None else f"{count / (1 << 20):.0f}"


def cells(result):
    """A result as a line of the table."""
    if "failed" in result:
        return (result["row"], *["–"] * (len(HEAD) - 2), result["failed"])
    return (
        result["row"], f"{result['connections']:,}", size(result["sent_bytes"]), milliseconds(result["p50_ms"]),
        milliseconds(result["p99_ms"], result["missing"] > result["messages"] / 100),
        milliseconds(result["max_ms"], result["missing"] > 0),
        mib(result["peak_bytes"]), mib(result["after_bytes"]),
        "–" if result["cpu_seconds"] is None else f"{result['cpu_seconds']:.1f}",
        f"{result['closed']} of {result['honest']}", "; ".join(result["bounds_passed"]) or "",
    )


class Lines:
    """The table for a terminal, a line at a time."""

    WIDTHS = (20, 11, 9, 8, 8, 8, 8, 9, 6, 12, 0)

    def head(self):
        """The first line."""
        return self._line(HEAD)

    def line(self, result):
        """That of a result."""
        return self._line(cells(result))

    def _line(self, texts):
        first, *rest = zip(texts, self.WIDTHS)
        return f"{first[0]:<{first[1]}} " + " ".join(f"{text:>{width}}" for text, width in rest[:-1]) + f"  {texts[-1]}"


def markdown(content):
    """All results as a table, with what was attacked."""
    rows = []
    for result in content["rows"]:
        name, *others = cells(result)
        rows.append([f"`{name}`", result.get("what", ""), result.get("app", ""), *others])
    run = content["run"]
    about = (f"percore {run['percore']}, {run['measured']}, {run['seconds']:g} s each. {run['processor']}, {run['cores']} cores, "
             f"{run['kernel']}.")
    return f"{about}\n{EXPLAINED.format(seconds=run['seconds'])}\n\n{table(['attack', 'what is sent', 'to', *HEAD[1:]], rows)}"
