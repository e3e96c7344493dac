"""Every metric of a swarm, as `catalogue` has those of a pool. Pure data, for both clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pidfdpool.integrations.metrics.catalogue import Catalogue, Metric
from pidfdpool.swarm import NodeState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pidfdpool.swarm import SwarmStatus

    _Values = Iterable[tuple[tuple[str, ...], float]]


class SwarmReading(NamedTuple):
    """A swarm at one moment.

    Attributes:
        name: its name.
        status: what is known of it, with the memory of its nodes.
        events: how many there were of each kind that is counted, by the kind's name in capitals.
        deaths: of nodes' processes, by reason and signal.
        tells_functions: False.
    """

    name: str
    status: SwarmStatus
    events: Mapping[str, int]
    deaths: Mapping[tuple[str, str], int]
    tells_functions: bool = False


def _count(*kinds: str) -> Callable[[SwarmReading], _Values]:
    return lambda reading: [((), sum(reading.events[kind] for kind in kinds))]


def _nodes(reading: SwarmReading) -> _Values:
    states = [node.state for node in reading.status.nodes]
    return [((state.name.lower(),), states.count(state)) for state in NodeState]


def _report_age(reading: SwarmReading) -> _Values:
    ages = [node.reported for node in reading.status.nodes if node.state.has_process and node.reported is not None]
    return [((), max(ages))] if ages else []


SWARMS = Catalogue(
    "swarm",
    (
        Metric("nodes", "pidfdpool.node.count", "{node}", False, "Nodes, by state.", ("state",), _nodes),
        Metric(
            "node_starts_total",
            "pidfdpool.node.starts",
            "{process}",
            True,
            "Processes that were started for nodes, the first ones and further ones.",
            (),
            _count("STARTED", "RESTARTED"),
        ),
        Metric(
            "node_restarts_total",
            "pidfdpool.node.restarts",
            "{process}",
            True,
            "Processes that took the place of another one of the same node.",
            (),
            _count("RESTARTED"),
        ),
        Metric(
            "node_start_failures_total",
            "pidfdpool.node.start_failures",
            "{process}",
            True,
            "Processes that could not be started.",
            (),
            _count("START_FAILED"),
        ),
        Metric(
            "node_deaths_total",
            "pidfdpool.node.deaths",
            "{process}",
            True,
            "Processes of nodes that have ended, by why the swarm ended them (unasked: it did not), and by signal.",
            ("reason", "signal"),
            lambda reading: reading.deaths.items(),
        ),
        Metric(
            "node_kills_total",
            "pidfdpool.node.kills",
            "{process}",
            True,
            "Processes of nodes that were killed, because they had not stopped in time or at once.",
            (),
            _count("KILLED"),
        ),
        Metric(
            "nodes_given_up_total",
            "pidfdpool.node.given_up",
            "{node}",
            True,
            "Nodes that were given up.",
            (),
            _count("GAVE_UP"),
        ),
        Metric(
            "node_report_age_seconds",
            "pidfdpool.node.report.age",
            "s",
            False,
            "Seconds since the last report of the node that has not reported for the longest time.",
            (),
            _report_age,
            adds_up=False,
        ),
        Metric(
            "node_memory_bytes",
            "pidfdpool.node.memory.usage",
            "By",
            False,
            "Resident memory of all nodes; pages that they share count for each.",
            (),
            lambda reading: [((), sum(node.memory or 0 for node in reading.status.nodes))],
        ),
    ),
)
