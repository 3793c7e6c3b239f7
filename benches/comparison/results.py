"""Results: rounds.csv has a line for each server in each round of each cell, runs.json when and of what the cells were
measured, machine.json where. Tables and plots need nothing else."""

import csv
import json
from pathlib import Path
from statistics import median

from comparison.grid import cell_named
from comparison.servers import RAW

# What a line keeps of a result, after cell, round and server; `failed` says why there is nothing else.
COLUMNS = ["messages_per_second", "handshakes_per_second", "cpu_us", "bytes_per_connection", "resident_kib", "p50_us",
           "p99_us", "failed"]
# More digits than the machine repeats, so that what is rounded again for a table comes out the same.
DIGITS, MORE_DIGITS = 5, {"cpu_us": 6, "bytes_per_connection": 8}


class Summary:
    """Median and spread of some rounds."""

    def __init__(self, values):
        self.median, self.least, self.most = median(values), min(values), max(values)


class CellResults:
    """A cell, when and of what it was measured, and its rounds: each of those maps a server's name to what `kept` keeps of
    what the load said, or to {"failed": why}."""

    def __init__(self, cell, run, rounds):
        self.cell, self.run, self.rounds = cell, run, rounds

    def values(self, server, value):
        """`value` of every round that came to something."""
        found = [value(one[server]) for one in self.rounds if server in one and "failed" not in one[server]]
        return [number for number in found if number is not None]

    def summary(self, server, value):
        """Median and spread, or nothing."""
        values = self.values(server, value)
        return Summary(values) if values else None

    def ratios_to_raw(self, server):
        """Messages a second over those of raw TCP, each within its round; the summary of that, or nothing."""
        pairs = []
        for one in self.rounds:
            both = [one.get(name, {}).get("messages_per_second") for name in (server, RAW)]
            if all(both):
                pairs.append(both[0] / both[1])
        return Summary(pairs) if pairs else None

    def failures(self, server):
        """Why rounds came to nothing."""
        return [one[server]["failed"] for one in self.rounds if "failed" in one.get(server, {})]


def times(factor, value):
    """A value in another unit."""
    return None if value is None else value * factor


def kept(result):
    """What is kept of the output of `percore bench --json`."""
    server, latency = result.get("server") or {}, result.get("latency_seconds") or {}
    idles = result.get("workload") == "idle"
    return {
        "messages_per_second": result.get("messages_per_second") or None,
        "handshakes_per_second": result.get("handshakes_per_second"),
        "cpu_us": times(1e6, server.get("cpu_seconds_per_message")),
        "bytes_per_connection": server.get("memory_bytes_per_connection") if idles else None,
        "resident_kib": times(1 / 1024, server.get("memory_bytes_after")),
        "p50_us": times(1e6, latency.get("p50")),
        "p99_us": times(1e6, latency.get("p99")),
    }


def rate(result):
    """Messages a second."""
    return result.get("messages_per_second")


def handshake_rate(result):
    """Handshakes a second."""
    return result.get("handshakes_per_second")


def cpu(result):
    """Processor time of the server for each message or handshake, in seconds."""
    microseconds = result.get("cpu_us")
    return None if microseconds is None else microseconds / 1e6


def memory_per_connection(result):
    """Resident bytes that a connection adds."""
    return result.get("bytes_per_connection")


def memory(result):
    """Resident bytes of the server with all connections."""
    return times(1024, result.get("resident_kib"))


def replace(path, text):
    """Writes a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.replace(path)


def shown(column, value):
    """A value in a line."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:.{MORE_DIGITS.get(column, DIGITS)}g}" if value < 10**DIGITS else f"{value:.0f}"


def read_rounds(folder):
    """The rounds of all cells by name."""
    path, cells = Path(folder) / "rounds.csv", {}
    if not path.exists():
        return cells
    with path.open(newline="") as lines:
        for line in csv.DictReader(lines):
            rounds = cells.setdefault(line["cell"], [])
            number = int(line["round"])
            rounds.extend({} for _ in range(len(rounds), number))
            values = {name: float(line[name]) for name in COLUMNS[:-1] if line[name]}
            rounds[number - 1][line["server"]] = {"failed": line["failed"]} if line["failed"] else values
    return cells


def write_cell(folder, name, run, rounds):
    """Puts a cell's rounds in the place of those that were there."""
    folder = Path(folder)
    runs = {**read_json(folder / "runs.json"), name: run}
    cells = {**read_rounds(folder), name: rounds}
    lines = [",".join(["cell", "round", "server", *COLUMNS])]
    for cell, all_rounds in sorted(cells.items()):
        for number, one in enumerate(all_rounds, 1):
            for server, result in one.items():
                values = [shown(column, result.get(column)).replace(",", ";").replace("\n", " ") for column in COLUMNS]
                lines.append(",".join([cell, str(number), server, *values]))
    replace(folder / "rounds.csv", "\n".join(lines) + "\n")
    entries = ",\n".join(f" {json.dumps(cell)}: {json.dumps(run)}" for cell, run in sorted(runs.items()))
    replace(folder / "runs.json", f"{{\n{entries}\n}}\n")


def write_machine(folder, machine):
    """Where all was measured."""
    replace(Path(folder) / "machine.json", json.dumps(machine, indent=1) + "\n")


def read_json(path):
    """A file, or nothing where there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def read(folder):
    """Results of all cells, in the order of the tables, and the machine."""
    folder = Path(folder)
    machine = read_json(folder / "machine.json") or {"servers": {}, "left_out": {}}
    runs = read_json(folder / "runs.json")
    found = [CellResults(cell_named(name), runs[name], rounds) for name, rounds in read_rounds(folder).items()]
    return sorted(found, key=lambda one: (one.cell.connections, one.cell.in_flight, one.cell.size)), machine
