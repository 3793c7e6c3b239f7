"""What was measured on, when, and with which versions."""

import datetime
import os
import platform

from comparison.tools import said


def first_value(path, name):
    """The value of the first line `name: value` of a file."""
    try:
        with open(path, encoding="utf-8") as lines:
            return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "unknown")
    except OSError:
        return "unknown"


def describe_run(percore, seconds):
    """What the file of a cell says beside its rounds: cells need not be measured all at once."""
    return {"measured": datetime.date.today().isoformat(), "percore": percore, "seconds": seconds}


def describe(servers, left_out, cores):
    """Content of machine.json."""
    kib = first_value("/proc/meminfo", "MemTotal").split()[0]
    return {
        "processor": first_value("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory_gib": round(int(kib) / 2**20) if kib.isdigit() else None,
        "kernel": f"{platform.system()} {platform.release()}",
        "rustc": said("rustc", "--version").removeprefix("rustc "),
        "cores_used": {"server": cores[0], "load": cores[1]},
        "servers": {server.name: server.version() for server in servers},
        "left_out": left_out,
    }
