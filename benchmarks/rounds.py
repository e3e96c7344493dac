"""The order of measurements: of each scenario, all contenders in turn, round after round (A B C A B C ...)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from benchmarks.figures import Round, verdict
from benchmarks.scenario import Scenario

Measured = Callable[[str, str, float, bool], dict[str, Any]]


def missing_modules(scenario: Scenario) -> list[str]:
    """Return the modules that a scenario needs and that are not installed."""
    return [name for name in scenario.needs if find_spec(name) is None]


def run(
    scenario: Scenario, contenders: Sequence[str], count: int, quick: bool, measured: Measured
) -> Mapping[str, list[Round]]:
    """Return the answers by contender. Whoever could not do it in one round is not asked again.

    The standard library's own pools come and go with processes, so each answer is one fresh process's.
    """
    answers: dict[str, list[Round]] = {name: [] for name in contenders}
    for number in range(min(count, scenario.rounds or count)):
        for name in contenders:
            if verdict(answers[name]) is not None:
                continue
            began = time.monotonic()
            answers[name].append(measured(scenario.name, name, scenario.bound, quick))
            took = time.monotonic() - began
            print(f"  {scenario.name} {name} {number + 1}: {took:.1f} s", file=sys.stderr, flush=True)
    return answers
