"""Plots as SVG files, from the results alone: plots.py RESULTS FOLDER. Runs in the environment that has matplotlib."""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from matplotlib import pyplot as plt  # noqa: E402

from comparison import results  # noqa: E402
from comparison.grid import CONNECTIONS, IN_FLIGHT, STEADY_RATE, size_name  # noqa: E402
from comparison.servers import ALL, RAW  # noqa: E402

# Told apart with every kind of colour vision (Okabe and Ito).
COLOURS = {
    RAW: "#999999",
    "percore": "#0072b2",
    "uWebSockets": "#d55e00",
    "fastwebsockets": "#e69f00",
    "tokio-websockets": "#009e73",
    "tokio-tungstenite": "#56b4e9",
    "ws": "#cc79a7",
    "gorilla": "#8c7a00",
}
STYLE = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "font.size": 11,
    "axes.titlesize": 12,
    "legend.frameon": False,
    # Text stays text, and the same data gives the same file.
    "svg.fonttype": "none",
    "svg.hashsalt": "percore",
}


# Ratios beyond this are cut off and written out, so that one outlier does not flatten all others.
MOST_RATIO = 1.6


def with_commas(number, _):
    """How an axis shows its numbers."""
    return f"{number:,.0f}"


def save(figure, folder, name):
    """Writes a plot."""
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def spread_of(summary):
    """Whiskers from the least to the most of the rounds."""
    return [[summary.median - summary.least], [summary.most - summary.median]]


def echo(found, names, connections, folder):
    """Messages over raw TCP: a group of bars for each size, a panel for each number in flight. The axis is cut."""
    figure, panels = plt.subplots(len(IN_FLIGHT), 1, figsize=(9.5, 8), sharey=True, layout="constrained")
    drawn = False
    for panel, in_flight in zip(panels, IN_FLIGHT):
        row = [one for one in found if one.cell.kind == "echo"
               and (one.cell.connections, one.cell.in_flight) == (connections, in_flight)]
        width = 0.8 / max(len(names), 1)
        for index, name in enumerate(names):
            for at, one in enumerate(row):
                ratio = one.ratios_to_raw(name)
                if ratio:
                    drawn = True
                    place = at + (index - (len(names) - 1) / 2) * width
                    panel.bar(place, ratio.median, width * 0.92, color=COLOURS[name], label=name,
                              yerr=spread_of(ratio), error_kw={"elinewidth": 0.8, "ecolor": "#444444"})
                    if ratio.median > MOST_RATIO:
                        panel.annotate(f"{ratio.median:.1f}", (place, MOST_RATIO), xytext=(0, 2), ha="center", va="bottom",
                                       textcoords="offset points", rotation=90, fontsize=9, annotation_clip=False)
        panel.axhline(1, color="#222222", linewidth=1.2, linestyle="--")
        panel.annotate("raw TCP", (1, 1), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
                       va="center", fontsize=9, annotation_clip=False)
        panel.set_ylim(0, MOST_RATIO)
        panel.set_xticks(range(len(row)), [size_name(one.cell.size) for one in row])
        panel.set_title(f"{connections:,} connections, {in_flight} in flight", loc="left", pad=30 if in_flight > 1 else 6)
        panel.set_ylabel("messages relative to raw TCP")
    handles = {label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    if drawn:
        save(figure, folder, f"echo-{connections}")


def bars(panel, one, names, value, title, label, logarithmic):
    """One bar a server, with its value written on it."""
    pairs = [(name, one.summary(name, value)) for name in names]
    pairs = [(name, summary) for name, summary in pairs if summary]
    for at, (name, summary) in enumerate(pairs):
        panel.barh(at, summary.median, 0.7, color=COLOURS[name], xerr=spread_of(summary),
                   error_kw={"elinewidth": 0.8, "ecolor": "#444444"})
        panel.annotate(f"{summary.median:,.0f}", (summary.most, at), xytext=(4, 0), textcoords="offset points",
                       va="center")
    panel.set_yticks(range(len(pairs)), [name for name, _ in pairs])
    panel.invert_yaxis()
    panel.grid(False)
    panel.margins(x=0.2)
    if logarithmic:
        panel.set_xscale("log")
        panel.set_xlim(left=10)
    panel.xaxis.set_major_formatter(with_commas)
    panel.set_title(title, loc="left")
    panel.set_xlabel(label)


def connections(found, names, folder):
    """Memory of idle connections, and handshakes."""
    wanted = [("idle", results.memory_per_connection, "Resident bytes for each idle connection", "bytes, logarithmic", True),
              ("handshakes", results.handshake_rate, "Handshakes a second", "handshakes a second", False)]
    shown = [(one, *rest) for kind, *rest in wanted for one in found if one.cell.kind == kind]
    if not shown:
        return
    figure, panels = plt.subplots(len(shown), 1, figsize=(9, 3.4 * len(shown)), squeeze=False, layout="constrained")
    for panel, (one, value, title, label, logarithmic) in zip(panels[:, 0], shown):
        title = f"{title}, {one.cell.connections:,} connections"
        bars(panel, one, names, value, title, label, logarithmic)
    save(figure, folder, "connections")


def overview(found, names, folder):
    """Three cells that say most, side by side, with a row for each server: the picture of the project's README."""
    wanted = [
        ("echo", lambda one: (one.cell.connections, one.cell.in_flight, one.cell.size) == (100, 32, 125),
         lambda one, name: one.ratios_to_raw(name), "{:.2f}", "Echo rate relative to raw TCP\n125 B, 32 in flight, 100 connections"),
        ("idle", lambda one: True, lambda one, name: one.summary(name, results.memory_per_connection), "{:,.0f}",
         "Bytes per idle connection\n10,000 connections, logarithmic"),
        ("handshakes", lambda one: True, lambda one, name: one.summary(name, results.handshake_rate), "{:,.0f}",
         "Handshakes a second\n100 at a time"),
    ]
    cells = [next((one for one in found if one.cell.kind == kind and fits(one)), None) for kind, fits, *_ in wanted]
    if None in cells:
        return
    figure, panels = plt.subplots(1, len(wanted), figsize=(11, 3.6), sharey=True, layout="constrained")
    for panel, one, (kind, _, summary_of, form, title) in zip(panels, cells, wanted):
        for at, name in enumerate(names):
            summary = summary_of(one, name)
            if summary:
                panel.barh(at, summary.median, 0.7, color=COLOURS[name])
                panel.annotate(form.format(summary.median), (summary.median, at), xytext=(4, 0), va="center",
                               textcoords="offset points", fontsize=10)
        panel.set_title(title, loc="left", fontsize=11)
        panel.grid(False)
        panel.tick_params(left=False)
        panel.xaxis.set_visible(False)
        panel.spines["bottom"].set_visible(False)
        panel.margins(x=0.3)
        if kind == "idle":
            panel.set_xscale("log")
            panel.set_xlim(10, 3e6)
        if kind == "echo":
            panel.axvline(1, color="#222222", linewidth=1.2, linestyle="--")
            panel.annotate("raw TCP", (1, len(names) - 0.5), xytext=(-4, 2), textcoords="offset points", ha="right",
                           fontsize=9)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    save(figure, folder, "overview")


def growth(found, folder):
    """Processor time for a message, and memory, against the number of connections."""
    wanted = [
        ("steady", results.cpu, 1e6, "µs of processor time", f"A message of 125 B, {STEADY_RATE:,} a second in all"),
        ("growth", results.cpu, 1e6, "µs of processor time", "The same as fast as possible, one in flight on each connection"),
        ("growth", results.memory, 2**-20, "resident MiB", "Memory of the server"),
    ]
    figure, panels = plt.subplots(len(wanted), 1, figsize=(9, 9.5), sharex=True, layout="constrained")
    drawn = False
    for panel, (kind, value, scale, label, title) in zip(panels, wanted):
        sizes = [one for one in found if one.cell.kind == kind]
        for name in ("percore", RAW):
            points = [(one.cell.connections, one.summary(name, value)) for one in sizes]
            points = [(count, summary) for count, summary in points if summary]
            counts = [count for count, _ in points]
            drawn |= bool(points)
            panel.plot(counts, [summary.median * scale for _, summary in points], "o-", color=COLOURS[name], label=name)
            panel.fill_between(counts, [summary.least * scale for _, summary in points],
                               [summary.most * scale for _, summary in points], color=COLOURS[name], alpha=0.15)
        panel.set_ylim(bottom=0)
        panel.set_ylabel(label)
        panel.set_title(title, loc="left")
        panel.legend(loc="lower right")
    panels[-1].set_xlabel("connections; the band is the spread of the rounds")
    panels[-1].xaxis.set_major_formatter(with_commas)
    if drawn:
        save(figure, folder, "growth")


def main():
    """Draws what there are results for."""
    found, machine = results.read(sys.argv[1])
    folder = Path(sys.argv[2])
    names = [server.name for server in ALL if server.name in machine["servers"] and server.name != RAW]
    with plt.rc_context(STYLE):
        for count in CONNECTIONS:
            echo(found, names, count, folder)
        connections(found, names, folder)
        growth(found, folder)
        overview(found, names, folder)


main()
