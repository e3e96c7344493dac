"""Every metric of a pool: its names, what it means, and where its values are. Pure data, for both clients.

`swarm_catalogue` has those of a swarm.

Names follow the conventions of each client. In Prometheus a counter ends in `_total` and a unit is part of the name.
In OpenTelemetry names have dots, and the unit is told apart (UCUM).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pidfdpool import Stats
    from pidfdpool.integrations.metrics.task_counts import Distribution

    Labels = Mapping[str, str]


class Reading(NamedTuple):
    """A pool at one moment.

    Attributes:
        name: its name.
        stats: its numbers.
        memory: resident memory of its workers in bytes, shared pages once for each worker.
        tasks: by outcome, signal ("": none) and function ("": not told apart).
        waits, runs: by function: how long tasks waited, and how long they ran.
        deaths: of workers, by reason and signal.
        tells_functions: whether functions are told apart.
    """

    name: str
    stats: Stats
    memory: int
    tasks: Mapping[tuple[str, str, str], int]
    waits: Mapping[str, Distribution]
    runs: Mapping[str, Distribution]
    deaths: Mapping[tuple[str, str], int]
    tells_functions: bool


class Metric(NamedTuple):
    """One metric, but for histograms.

    Attributes:
        name: in Prometheus, behind the namespace. That of a counter ends in "_total" there.
        dotted: in OpenTelemetry.
        unit: in OpenTelemetry.
        counts: whether it is a counter. Otherwise it goes up and down.
        text: what it means.
        labels: those beside that of the name, in Prometheus; their names in OpenTelemetry are in ATTRIBUTES.
        values: takes a reading, and yields the values of the labels, and the number.
        adds_up: whether a sum of it over pools means anything. Otherwise it is a gauge in OpenTelemetry as well.
    """

    name: str
    dotted: str
    unit: str
    counts: bool
    text: str
    labels: tuple[str, ...]
    values: Callable[[Any], Iterable[tuple[tuple[str, ...], float]]]
    adds_up: bool = True


class HistogramMetric(NamedTuple):
    """A histogram of seconds, with the label "function" if functions are told apart."""

    name: str
    dotted: str
    text: str
    of: Callable[[Reading], Mapping[str, Distribution]]


class Catalogue(NamedTuple):
    """All metrics of one kind of thing. kind: "pool" or "swarm", which is the label with its name as well."""

    kind: str
    metrics: tuple[Metric, ...]
    histograms: tuple[HistogramMetric, ...] = ()


POOL = "pidfdpool.pool.name"
FUNCTION = "code.function.name"
ATTRIBUTES = {  # by metric and label; for all metrics if there is no metric
    "pool": POOL,
    "swarm": "pidfdpool.swarm.name",
    "function": FUNCTION,
    "outcome": "pidfdpool.task.outcome",
    "reason": "pidfdpool.worker.death.reason",
    "signal": "pidfdpool.worker.death.signal",
    "tasks_pending.state": "pidfdpool.task.state",
    "workers.state": "pidfdpool.worker.state",
    "nodes.state": "pidfdpool.node.state",
    "node_deaths_total.reason": "pidfdpool.node.death.reason",
    "node_deaths_total.signal": "pidfdpool.node.death.signal",
}


def attribute(metric: Metric, label: str) -> str:
    """Return the name that a label has in OpenTelemetry."""
    return ATTRIBUTES.get(f"{metric.name}.{label}") or ATTRIBUTES[label]


def _one(name: str) -> Callable[[Reading], Iterable[tuple[tuple[str, ...], float]]]:
    return lambda reading: [((), getattr(reading.stats, name))]


def _by_state(*names: str) -> Callable[[Reading], Iterable[tuple[tuple[str, ...], float]]]:
    return lambda reading: [((name,), getattr(reading.stats, name)) for name in names]


METRICS = (
    Metric(
        "tasks_submitted_total",
        "pidfdpool.task.submitted",
        "{task}",
        True,
        "Tasks that the pool has accepted.",
        (),
        _one("submitted"),
    ),
    Metric(
        "tasks_total",
        "pidfdpool.task.completed",
        "{task}",
        True,
        "Tasks that are over, by outcome, and by signal if a signal ended the worker.",
        ("outcome", "signal", "function"),
        lambda reading: reading.tasks.items(),
    ),
    Metric(
        "task_retries_total",
        "pidfdpool.task.retries",
        "{attempt}",
        True,
        "Attempts beyond the first that tasks were granted.",
        (),
        _one("retries"),
    ),
    Metric(
        "tasks_pending",
        "pidfdpool.task.pending",
        "{task}",
        False,
        "Tasks without an outcome, by state: queued, delayed (until their next attempt) or running.",
        ("state",),
        _by_state("queued", "delayed", "running"),
    ),
    Metric(
        "workers",
        "pidfdpool.worker.count",
        "{worker}",
        False,
        "Workers, by state.",
        ("state",),
        _by_state("starting", "idle", "busy", "stopping"),
    ),
    Metric(
        "workers_max",
        "pidfdpool.worker.max",
        "{worker}",
        False,
        "Workers that the pool may have.",
        (),
        _one("size"),
    ),
    Metric(
        "worker_deaths_total",
        "pidfdpool.worker.deaths",
        "{worker}",
        True,
        "Workers that have ended, by what the pool did to end them (crash: nothing), and by signal.",
        ("reason", "signal"),
        lambda reading: reading.deaths.items(),
    ),
    Metric(
        "worker_restarts_total",
        "pidfdpool.worker.restarts",
        "{worker}",
        True,
        "Workers that took the place of another.",
        (),
        _one("restarts"),
    ),
    Metric(
        "worker_memory_bytes",
        "pidfdpool.worker.memory.usage",
        "By",
        False,
        "Resident memory of all workers; pages that they share count for each.",
        (),
        lambda reading: [((), reading.memory)],
    ),
    Metric(
        "template_restarts_total",
        "pidfdpool.template.restarts",
        "{template}",
        True,
        "Templates that took the place of another.",
        (),
        _one("template_restarts"),
    ),
    Metric(
        "segments",
        "pidfdpool.segment.count",
        "{segment}",
        False,
        "Segments of shared memory for large payloads.",
        (),
        _one("segments"),
    ),
    Metric(
        "segments_bytes",
        "pidfdpool.segment.size",
        "By",
        False,
        "Size of these segments together.",
        (),
        _one("segment_bytes"),
    ),
    Metric(
        "broken",
        "pidfdpool.pool.broken",
        "{pool}",
        False,
        "1 if the pool is broken.",
        (),
        lambda reading: [((), int(reading.stats.broken is not None))],
    ),
)

WAITS = HistogramMetric(
    "task_queue_seconds",
    "pidfdpool.task.queue.duration",
    "Seconds from the submission of a task until a worker began it.",
    lambda reading: reading.waits,
)
RUNS = HistogramMetric(
    "task_duration_seconds",
    "pidfdpool.task.duration",
    "Seconds that a task ran in its worker.",
    lambda reading: reading.runs,
)
HISTOGRAMS = (WAITS, RUNS)
POOLS = Catalogue("pool", METRICS, HISTOGRAMS)
