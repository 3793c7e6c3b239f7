"""Results: one file a cell with every round, and what is computed from them. Nothing else is needed for tables and plots."""

import json
from pathlib import Path
from statistics import median

from comparison.grid import Cell
from comparison.servers import RAW


class Summary:
    """Median and spread of some rounds."""

    def __init__(self, values):
        self.median, self.least, self.most = median(values), min(values), max(values)


class CellResults:
    """A cell, when and of what it was measured, and its rounds: each of those maps a server's name to what the load said, or to
    {"failed": why}."""

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


def rate(result):
    """Messages a second."""
    return result.get("messages_per_second")


def handshake_rate(result):
    """Handshakes a second."""
    return result.get("handshakes_per_second")


def cpu(result):
    """Processor time of the server for each message or handshake, in seconds."""
    return (result.get("server") or {}).get("cpu_seconds_per_message")


def memory_per_connection(result):
    """Resident bytes that a connection adds."""
    return (result.get("server") or {}).get("memory_bytes_per_connection")


def memory(result):
    """Resident bytes of the server with all connections."""
    return (result.get("server") or {}).get("memory_bytes_after")


def write(folder, name, content):
    """A file of the results, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content, indent=1) + "\n")
    new.replace(path)


def read(folder):
    """Results of all cells, in the order of the tables, and the machine."""
    files = {path.stem: json.loads(path.read_text()) for path in Path(folder).glob("*.json")}
    machine = files.pop("machine", {"servers": {}, "left_out": {}})
    found = [CellResults(Cell.from_description(file["cell"]), file["run"], file["rounds"]) for file in files.values()]
    return sorted(found, key=lambda one: (one.cell.connections, one.cell.in_flight, one.cell.size)), machine
