"""The order of measurements: of each scenario, all contenders in turn, and all scenarios round after round.

So the contenders that are compared in one round are measured within moments, and the rounds of a scenario far apart.
Each round begins with another contender (A B C, B C A), because it meets what others have left.

If time is limited, the scenarios of a quick run come first in the first round, because the others may be left without
some of their contenders.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.contenders import BASELINE, OURS
from benchmarks.figures import Round, verdict
from benchmarks.scenario import Scenario

_LONG = 8.0  # seconds, for one measurement
_LONGEST = 25.0  # seconds, for one that is not made in any case, if time is limited
_FOR_ALL = 0.65  # of a limited time: after that only those are measured for the first time that are in any case

Measured = Callable[[str, str, float, bool], dict[str, Any]]


@dataclass
class Stage:
    """A scenario, who goes through it, how often at most, and what was answered so far, by contender.

    Those in `always` are measured in each round however long they take, and at least once whatever the time.
    """

    scenario: Scenario
    contenders: Sequence[str]
    count: int
    always: Collection[str] = (OURS, BASELINE)
    answers: dict[str, list[Round]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # that each contender's last measurement took

    def in_the_race(self) -> list[str]:
        """Return the contenders that could do it so far; the others are not asked again."""
        return [name for name in self.contenders if verdict(self.answers.get(name, ())) is None]

    def leave_out_long(self) -> None:
        """Ask no more those that take long, except for those that the others are compared with."""
        self.contenders = [
            name for name in self.contenders if name in self.always or self.seconds.get(name, 0.0) <= _LONG
        ]

    def expected(self) -> float:
        """Return the seconds that a further round will take; 0 before the first."""
        return sum(self.seconds.get(name, 0.0) for name in self.in_the_race())

    def leave_out_unasked(self) -> None:
        """Ask no more those for whom there was no time in the first round: no ratio would be of the same round."""
        self.contenders = [name for name in self.contenders if name in self.answers]


def run(stages: Sequence[Stage], quick: bool, measured: Measured, budget: float | None = None) -> Iterator[int]:
    """Fill the stages' answers, and yield the number of each round that is complete.

    budget: seconds. The first round is made in any case, though not by all contenders; of the others, what will be
    over by then, without those that took so long in the first that they would leave no time for the rest.
    """
    began = time.monotonic()
    for number in range(max((stage.count for stage in stages), default=0)):
        for stage in _in_order(stages, number, budget):
            left = None if budget is None else budget - (time.monotonic() - began)
            if number >= stage.count or (number and left is not None and stage.expected() > left):
                continue
            names = stage.in_the_race()
            if not number and budget is not None and left is not None and left < (1 - _FOR_ALL) * budget:
                names = [name for name in names if name in stage.always]
            _round(stage, names, number, quick, measured, limited=budget is not None)
        if budget is not None:
            for stage in stages:
                stage.leave_out_unasked()
                stage.leave_out_long()
        yield number


def _in_order(stages: Sequence[Stage], number: int, budget: float | None) -> list[Stage]:
    """Return the order of a round: what is left out for want of time are the longest, or those that say the least."""
    if not number and budget is not None:
        return sorted(stages, key=lambda stage: not stage.scenario.quick)
    return sorted(stages, key=Stage.expected)


def _round(
    stage: Stage, names: Sequence[str], number: int, quick: bool, measured: Measured, *, limited: bool
) -> None:
    scenario = stage.scenario
    first = number % max(1, len(names))
    for name in (*names[first:], *names[:first]):
        began = time.monotonic()
        bound = min(scenario.bound, _LONGEST) if limited and name not in stage.always else scenario.bound
        stage.answers.setdefault(name, []).append(measured(scenario.name, name, bound, quick))
        stage.seconds[name] = time.monotonic() - began
        print(f"  {scenario.name} {name} {number + 1}: {stage.seconds[name]:.1f} s", file=sys.stderr, flush=True)
