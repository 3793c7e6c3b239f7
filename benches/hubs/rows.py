"""The rows: what is measured, of which servers, and which value of it counts."""

from dataclasses import dataclass
from typing import Callable

from hubs import measure
from hubs.servers import LIMIT, NCHAN, OURS

SUBSCRIBERS = (50, 200, 1000)
# Deliveries a second at which latencies are compared: every server has time to spare.
COMMON_RATE = 20_000
OVERLOAD, OVERLOADED = 3, 200
CONNECTIONS, DEPTHS = 50, (1, 16)
KEPT = 100
IDLE, BACK = 10_000, 10_000


@dataclass(frozen=True)
class Row:
    """Something to measure. `run` is given the server, the cores, the seconds, and what was measured before."""

    name: str
    hubs: Callable
    run: Callable

    def suits(self, hub):
        """Whether the server can do it."""
        return self.hubs(hub)


def everyone(_):
    """All servers."""
    return True


def servers(hub):
    """All but the limit, which is no server."""
    return hub.name != LIMIT


def two(hub):
    """percore and nchan."""
    return hub.name in (OURS, NCHAN)


def ours(hub):
    """percore alone."""
    return hub.name == OURS


def per_cpu(result):
    """Deliveries or answers for a second of the server's processor time."""
    return (result["deliveries"] if "deliveries" in result else result["answers"]) / result["cpu"]


def per_second(result):
    """The same for a second."""
    return (result["deliveries"] if "deliveries" in result else result["answers"]) / result["seconds"]


def all_rows():
    """In the order in which they are measured: overload goes by what nchan manages."""
    rows = []
    for count in SUBSCRIBERS:
        rows.append(Row(f"fan-out-{count}", everyone,
                        lambda hub, cores, seconds, _, count=count: measure.fan_out(hub, cores, seconds, count)))
    rows.append(Row(f"fan-out-{SUBSCRIBERS[0]}-history", ours, lambda hub, cores, seconds, _:
                    measure.fan_out(hub, cores, seconds, SUBSCRIBERS[0], KEPT)))
    for count in SUBSCRIBERS:
        rows.append(Row(f"latency-{count}", servers, lambda hub, cores, seconds, _, count=count:
                        measure.fan_out(hub, cores, seconds, count, rate=COMMON_RATE)))
    rows.append(Row(f"overload-{OVERLOADED}", servers, lambda hub, cores, seconds, manages: measure.fan_out(
        hub, cores, seconds, OVERLOADED, rate=OVERLOAD * manages(f"fan-out-{OVERLOADED}", NCHAN))))
    for depth in DEPTHS:
        for history in (0, KEPT):
            name = f"publish-{depth}" + ("-history" if history else "")
            rows.append(Row(name, two, lambda hub, cores, seconds, _, depth=depth, history=history:
                            measure.publish(hub, cores, seconds, CONNECTIONS, depth, history)))
    rows.append(Row("idle", servers, lambda hub, cores, *_: measure.idle(hub, cores, IDLE)))
    rows.append(Row("recover", ours, lambda hub, cores, *_: measure.recover(hub, cores, BACK, KEPT)))
    return rows
