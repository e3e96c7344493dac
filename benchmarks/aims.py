"""What this build is to be beside the one before the second round of work on speed: a table for `--against`. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.contenders import OURS
from benchmarks.figures import known, ratios, summarized, values_of, written
from benchmarks.scenario import Metric
from benchmarks.scenarios.catalogue import SCENARIOS
from benchmarks.tables import Results, markdown

TITLE = "Against what was aimed at"
TEXT = (
    "Figures marked x are ratios to the other build, medians of those of the same round, turned so that more is "
    "better. The others are of this build alone, at most as much as was aimed at."
)
_FORK = "ours-fork"
_EXHAUSTED = "without-segments"


@dataclass(frozen=True)
class Aim:
    """One figure that was aimed at.

    Args:
        title: what it is.
        scenario, metric: how it is measured.
        aim: the least ratio to the other build; the most, if there is a unit.
        unit: that of the figure, which is then of this build alone. None: it is a ratio.
        contender: in which of our ways.
        per: the figure is divided by that of this scenario.
    """

    title: str
    scenario: str
    metric: str
    aim: float
    unit: str | None = None
    contender: str = OURS
    per: str | None = None

    @property
    def figure(self) -> Metric:
        """Return what is measured."""
        return next(metric for metric in SCENARIOS[self.scenario].metrics if metric.key == self.metric)

    def reached(self, results: Results, this: str, other: str) -> float | None:
        """Return how far this build has come, if that was measured. this, other: what follows a contender's name."""
        own = values_of(results.get(self.scenario, {}).get(self.contender + this, ()), self.metric)
        if self.unit is None:
            base = values_of(results.get(self.scenario, {}).get(self.contender + other, ()), self.metric)
            found = summarized(ratios(own, base, self.figure.more_is_better))
        elif self.per is not None:
            base = values_of(results.get(self.per, {}).get(self.contender + this, ()), self.metric)
            found = summarized(ratios(own, base, more_is_better=True))
        else:
            found = summarized(known(own))
        return None if found is None else found.median

    def row(self, reached: float) -> list[str]:
        """Return the row of the table."""
        met = reached >= self.aim if self.unit is None else reached <= self.aim
        unit = "x" if self.unit is None else f" {self.unit}"
        most = "" if self.unit is None else "at most "
        aim = f"{most}{written(self.aim)}{unit}"
        return [self.title, self.scenario, aim, f"{written(reached)}{unit}", "reached" if met else "missed"]


def _growth(title: str, contender: str) -> Aim:
    return Aim(
        f"1,000 workers, {title}: time until ready", "many-1000", "ready", 13, "x that of 100", contender, "many-100"
    )


AIMS = (
    Aim("map, at most 1,000 inputs ahead", "bounded-1000", "rate", 15),
    Aim("map, at most 16 inputs ahead", "bounded-16", "rate", 1.2),
    Aim("a million tasks cancelled one by one", "cancel-1000k", "each", 4),
    Aim("a million tasks wait: shutdown returns", "drop-1000k", "returned", 10, "ms"),
    Aim("40,000 tiny tasks", "submit-40k", "rate", 2),
    Aim("40,000 tiny tasks, host CPU", "submit-40k", "cpu", 2),
    Aim("tasks with other arguments and results", "submit-objects", "rate", 1.2),
    Aim("map with a timeout for each call", "timed-map", "rate", 50),
    Aim("16 MB as an argument, no shared memory", "argument-16mb", "rate", 3, contender=_EXHAUSTED),
    Aim("128 MB as an argument, no shared memory", "argument-128mb", "rate", 1.5, contender=_EXHAUSTED),
    Aim("16 MB as a result, no shared memory", "result-16mb", "rate", 3, contender=_EXHAUSTED),
    Aim("128 MB as a result, no shared memory", "result-128mb", "rate", 1.5, contender=_EXHAUSTED),
    Aim("2.2 GB as an argument: host grows by", "argument-2.2gb", "growth", 2420, "MB"),
    Aim("asyncio, pool.run, steady", "asyncio-native", "steady", 1.5),
    Aim("asyncio, pool.run, loop delay p99", "asyncio-native", "late", 1),
    Aim("first result, exec way", "first-result", "first", 1.25),
    Aim("submit returns, exec way", "first-result", "submitted", 3, "ms"),
    Aim("first result, fork way", "first-result", "first", 1.67, contender=_FORK),
    Aim("latency with gaps of 1 ms, p50", "latency-gaps", "p50", 1.33),
    Aim("latency with gaps of 1 ms, p99", "latency-gaps", "p99", 1.25),
    Aim("latency, steady, p50", "latency-steady", "p50", 1.18),
    _growth("exec way", OURS),
    _growth("fork way", _FORK),
    Aim("memory per worker (PSS)", "idle-memory", "worker", 1),
)


def table(results: Results, this: str, other: str) -> str:
    """Return the table, of what was measured; nothing if that is nothing. this, other: as in `Aim.reached`."""
    rows = [["", "scenario", "aimed at", "reached", ""]]
    rows += [aim.row(reached) for aim in AIMS if (reached := aim.reached(results, this, other)) is not None]
    return markdown(rows) if len(rows) > 1 else ""
