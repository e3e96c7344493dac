"""What was aimed at, and how far this run has come: a table made of the results, and of nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.contenders import BASELINE, CONTENDERS, OURS, POOLS
from benchmarks.figures import known, ratios, summarized, values_of, written
from benchmarks.scenario import Metric
from benchmarks.scenarios.catalogue import SCENARIOS
from benchmarks.tables import markdown

TITLE = "Against what was aimed at"
TEXT = (
    "Computed from what the tables above show. Figures marked x are ratios to ProcessPoolExecutor (fork), medians of "
    "those of the same round, turned so that more is better; the others have their unit. Best other: of all pools "
    "but these two."
)

_OURS_FORK = "ours-fork"
_PEERS = tuple(name for name in POOLS if name not in (OURS, _OURS_FORK, BASELINE))
_NO_FORK_OF_THE_HOST = ("standard-forkserver", "loky", "joblib")


@dataclass(frozen=True)
class Target:
    """One figure that was aimed at.

    Args:
        title: what it is.
        scenario: by which it is measured.
        metric: which figure of that.
        aim: the least, or the most where less is better.
        stretch: what would be better still.
        unit: that of the figure. None: it is a ratio to the baseline.
        over: a limit of the machine by which the figure is divided.
        ours: in which of our ways.
        others: the scenario that the other pools went through, if they had to take another.
        peers: with whom it is compared.
        per: a scenario by whose figure, of the same contender and round, this one is divided.
    """

    title: str
    scenario: str
    metric: str
    aim: float
    stretch: float | None = None
    unit: str | None = None
    over: str | None = None
    ours: str = OURS
    others: str | None = None
    peers: tuple[str, ...] = _PEERS
    per: str | None = None

    @property
    def figure(self) -> Metric:
        """Return what is measured."""
        return next(metric for metric in SCENARIOS[self.scenario].metrics if metric.key == self.metric)

    @property
    def more_is_better(self) -> bool:
        """Whether more of it is better, as it always is of a ratio."""
        return self.unit is None or self.figure.more_is_better

    def of(self, name: str, run: Mapping[str, Any]) -> float | None:
        """Return how far a contender has come in a run, if it was measured there."""
        results = run["results"]
        others = self.others or self.scenario
        its = values_of(results.get(self.scenario if name == self.ours else others, {}).get(name, ()), self.metric)
        if self.unit is None:
            base = values_of(results.get(others, {}).get(BASELINE, ()), self.metric)
            found = summarized(ratios(its, base, self.figure.more_is_better))
        elif self.per is not None:
            base = values_of(results.get(self.per, {}).get(name, ()), self.metric)
            found = summarized(ratios(its, base, more_is_better=True))
        else:
            found = summarized(known(its))
        if found is None:
            return None
        if self.over is None:
            return found.median
        limit = summarized(known(values_of(run["limits"].get(self.over, ()), "value")))
        return found.median / limit.median if limit else None

    def is_met(self, value: float, aim: float) -> bool:
        """Return whether a value is as good as that."""
        return value >= aim if self.more_is_better else value <= aim

    def best(self, names: Sequence[str], run: Mapping[str, Any]) -> tuple[str, float] | None:
        """Return the best of those that were measured."""
        found = [(name, value) for name in names if (value := self.of(name, run)) is not None]
        if not found:
            return None
        return (max if self.more_is_better else min)(found, key=lambda each: each[1])


def _share(name: str, title: str, aim: float) -> Target:
    return Target(f"worker beside a busy host, {title} tasks", f"busy-{name}", "share", aim, unit="%")


def _json(name: str, title: str, aim: float) -> Target:
    return Target(f"JSON of {title}, 2 workers, over inline", f"json-{name}", "speedup", aim, unit="x inline")


def _growth(way: str, name: str) -> Target:
    title = f"until 1,000 workers are ready, {way}"
    return Target(title, "many-1000", "ready", 13, unit="x that of 100", ours=name, per="many-100")


TARGETS = (
    Target("tiny tasks by submit, 2 workers", "submit-2", "rate", 12, stretch=20),
    Target("host CPU per tiny task", "submit-2", "cpu", 12),
    Target("latency p50", "latency-steady", "p50", 4),
    Target("latency p99", "latency-steady", "p99", 3),
    Target("map(abs, range(100_000))", "map-100k", "rate", 500),
    _json("1kb", "1 KB", 1.3),
    _json("50kb", "50 KB", 1.5),
    _json("600kb", "600 KB", 1.7),
    Target("bytes of 1 MB there and back", "echo-bytes-1mb", "rate", 10),
    Target("bytes of 16 MB there and back", "echo-bytes-16mb", "rate", 7),
    Target("arrays of 1 MB there and back", "echo-array-1mb", "rate", 15),
    _share("50us", "50 µs", 85),
    _share("1ms", "1 ms", 97),
    Target("asyncio burst, pool.run", "asyncio-native", "burst", 12, others="asyncio-executor"),
    Target("asyncio steady, pool.run", "asyncio-native", "steady", 20, others="asyncio-executor"),
    Target("asyncio burst, run_in_executor", "asyncio-executor", "burst", 4),
    Target("asyncio steady, run_in_executor", "asyncio-executor", "steady", 4),
    Target("map of unequal tasks, makespan", "skewed-map", "makespan", 1.05, unit="x ideal"),
    Target("first result, fork", "first-result", "first", 1.3, ours=_OURS_FORK),
    Target(
        "first result without a fork of the host", "first-result", "first", 2,
        unit="x `python -c pass`", over="start", peers=_NO_FORK_OF_THE_HOST,
    ),
    Target("crash until told", "crash-told", "told", 1),
    Target("crash until the next good result", "crash-told", "next", 1),
    Target("tasks lost by another's crash", "crash-lost", "lost", 0, unit="of 10"),
    Target("idle: wake-ups of the host", "idle-wakes", "host", 0, unit="/s"),
    Target("idle: wake-ups of the pool's processes", "idle-wakes", "pool", 0, unit="/s"),
    Target("idle: threads in the host", "idle-memory", "threads", 1, unit=""),
    Target("40,000 tiny tasks by submit, 2 workers", "submit-40k", "rate", 10),
    Target("bytes of 64 KB there and back", "echo-bytes-64kb", "rate", 1.7),
    _growth("exec way", OURS),
    _growth("fork way", _OURS_FORK),
    Target("bytes of 2.2 GB as an argument", "argument-2.2gb", "rate", 1),
    Target("the same: host grows by", "argument-2.2gb", "growth", 2420, unit="MB"),
    Target("a million tasks wait: shutdown returns", "drop-1000k", "returned", 10, unit="ms"),
    Target("asyncio steady, pool.run, second aim", "asyncio-native", "steady", 6, others="asyncio-executor"),
    Target("first result: submit returns", "first-result", "submitted", 3, unit="ms"),
    Target("memory per worker (PSS)", "idle-memory", "worker", 1),
    Target("memory per worker of 4 (PSS), all processes", "idle-memory-4", "each", 1),
)  # fmt: skip


def table(run: Mapping[str, Any]) -> str:
    """Return the table, of what ours was measured for; nothing if that is nothing."""
    rows = [["", CONTENDERS[BASELINE].title, "best other", "aimed at", "reached", ""]]
    rows += [row for target in TARGETS if (row := _row(target, run))]
    return markdown(rows) if len(rows) > 1 else ""


def _row(target: Target, run: Mapping[str, Any]) -> list[str]:
    reached = target.of(target.ours, run)
    if reached is None:
        return []
    base = target.of(BASELINE, run)
    best = target.best(target.peers, run)
    aim = _with_unit(target, target.aim)
    if target.stretch is not None:
        aim += f", at best {_with_unit(target, target.stretch)}"
    return [
        target.title,
        "-" if base is None else _with_unit(target, base),
        "-" if best is None else f"{_with_unit(target, best[1])}, {CONTENDERS[best[0]].title}",
        aim if target.more_is_better else f"at most {aim}",
        _with_unit(target, reached),
        _judged(target, reached),
    ]


def _judged(target: Target, reached: float) -> str:
    if target.stretch is not None and target.is_met(reached, target.stretch):
        return "more than reached"
    return "reached" if target.is_met(reached, target.aim) else "missed"


def _with_unit(target: Target, value: float) -> str:
    if target.unit is None:
        return f"{written(value)}x"
    return f"{written(value)} {target.unit}".rstrip() if target.unit != "%" else f"{written(value)}%"
