"""What a scenario is: a measurement that every contender goes through, and the figures that it yields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.contender import Contender
from benchmarks.contenders import BASELINE, POOLS

Measure = Callable[[Callable[[int], Contender], bool], Mapping[str, float]]


class HangsError(Exception):
    """A future that is never resolved; raised by a scenario that noticed before its bound did."""


@dataclass(frozen=True)
class Metric:
    """One figure of a scenario: what it is, in what unit, and whether its ratio to another's says anything.

    It says nothing where the best figure is about zero.
    """

    key: str
    title: str
    unit: str
    more_is_better: bool = False
    compared: bool = True

    @property
    def column(self) -> str:
        """Return what stands above it in a table."""
        return f"{self.title} ({self.unit})" if self.title else self.unit


@dataclass(frozen=True)
class Scenario:
    """One measurement, for a fresh process.

    Args:
        name: what `--scenario` calls it.
        title: what sets it apart from the others of its group; may be empty.
        metrics: the figures that measure() returns, by their keys; one may be left out, and is shown as "-".
        measure: is called with a function that makes a contender with so many workers, and whether to be quick.
        bound: seconds after which it is given up.
        quick: whether it is part of `--quick`.
        at: its place on the axis of its group's plot.
        needs: modules without which it is left out.
        rounds: at most so many, because it takes long.
        memory: bytes that must be available; it is left out where they are not.
        contenders: the names of those who go through it, where these are not all of its group's. Then they do so
            though time is limited.
        always: the names of those who do so, too, besides ours and the baseline.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    measure: Measure
    bound: float = 60.0
    quick: bool = False
    at: float | None = None
    needs: tuple[str, ...] = ()
    rounds: int | None = None
    memory: float = 0
    contenders: tuple[str, ...] | None = None
    always: tuple[str, ...] = ()

    def column(self, metric: Metric) -> str:
        """Return what stands above a metric in a table."""
        return ", ".join(part for part in (self.title, metric.column) if part)


@dataclass(frozen=True)
class Group:
    """Scenarios that share a table and a plot.

    Args:
        name: what `--scenario` calls all of them.
        title: the heading.
        text: what is measured.
        scenarios: at least one.
        axis: what their `at` counts, where that makes a line.
        contenders: the names of those who go through them.
        baseline: whom the others are compared with.
    """

    name: str
    title: str
    text: str
    scenarios: tuple[Scenario, ...]
    axis: str | None = None
    contenders: tuple[str, ...] = tuple(POOLS)
    baseline: str = BASELINE


@dataclass(frozen=True)
class Limit:
    """A figure of the machine itself, against which those of the pools can be held."""

    name: str
    title: str
    unit: str
    measure: Callable[[bool], float]
    more_is_better: bool = False

    def as_scenario(self) -> Scenario:
        """Return it in the form in which it is run: a scenario without a contender."""
        metric = Metric("value", "", self.unit, self.more_is_better)

        def measure(_new: Any, quick: bool) -> Mapping[str, float]:
            return {"value": self.measure(quick)}

        return Scenario(self.name, self.title, (metric,), measure, quick=True)
