"""Medians, their spread, and ratios of what was measured in the same round. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Round = Mapping[str, Any]  # what `measure` answers: values by key, or a verdict with its reason


@dataclass(frozen=True)
class Summary:
    """A median with the least and the greatest value."""

    median: float
    low: float
    high: float


def summarized(values: Sequence[float]) -> Summary | None:
    """Return the summary of values, if there are any."""
    return Summary(statistics.median(values), min(values), max(values)) if values else None


def values_of(rounds: Sequence[Round], key: str) -> list[float | None]:
    """Return a metric's value in each round; None where there is none."""
    return [answer.get("values", {}).get(key) for answer in rounds]


def known(values: Sequence[float | None]) -> list[float]:
    """Leave out the rounds without a value."""
    return [value for value in values if value is not None]


def ratios(values: Sequence[float | None], baseline: Sequence[float | None], more_is_better: bool) -> list[float]:
    """Return how many times as good each value is as the baseline's of the same round; more than 1 is better."""
    found = []
    for value, base in zip(values, baseline, strict=False):
        if value is None or base is None:
            continue
        above, below = (value, base) if more_is_better else (base, value)
        if above > 0 and below > 0:
            found.append(above / below)
    return found


def verdict(rounds: Sequence[Round]) -> tuple[str, str] | None:
    """Return the last verdict and its reason, if any round had one instead of values."""
    for answer in reversed(rounds):
        if "verdict" in answer:
            return answer["verdict"], answer["reason"]
    return None


def written(value: float) -> str:
    """Write a figure with three digits, or all before the point."""
    if abs(value) >= 100 or value == round(value):
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    if abs(value) >= 1:
        return f"{value:.2f}"
    return f"{value:.3f}"
