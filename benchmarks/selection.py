"""Which of the chosen scenarios can be run here, and by whom. Pure: what there is here is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field

from benchmarks.contenders import POOLS
from benchmarks.scenario import Scenario
from benchmarks.scenarios.catalogue import GROUPS


@dataclass(frozen=True)
class Here:
    """What there is on this machine: contenders, memory in bytes, and modules."""

    contenders: Set[str]
    memory: float
    has_module: Callable[[str], bool]


@dataclass
class Selection:
    """Scenarios with those who go through them, and what is left out with the reason."""

    runs: list[tuple[Scenario, list[str]]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def selected(scenarios: Sequence[str], contenders: Sequence[str], here: Here) -> Selection:
    """Return what of the chosen can be run."""
    found = Selection()
    found.left_out += [
        f"{kind.title} is not installed"
        for name, kind in POOLS.items()
        if name in contenders and name not in here.contenders
    ]
    for scenario, its in _wanted(scenarios, contenders):
        able = [name for name in its if name in here.contenders]
        obstacle = obstacle_of(scenario, here)
        if obstacle:
            found.left_out.append(f"{scenario.name} needs {obstacle}")
        elif able:
            found.runs.append((scenario, able))
    return found


def _wanted(scenarios: Sequence[str], contenders: Sequence[str]) -> Iterator[tuple[Scenario, list[str]]]:
    for group in GROUPS:
        for scenario in group.scenarios:
            its = [name for name in contenders if name in (scenario.contenders or group.contenders)]
            if scenario.name in scenarios and its:
                yield scenario, its


def obstacle_of(scenario: Scenario, here: Here) -> str:
    """Return what a scenario needs and does not have; nothing if that is nothing."""
    missing = [name for name in scenario.needs if not here.has_module(name)]
    if missing:
        return ", ".join(missing)
    if scenario.memory > here.memory:
        return f"{scenario.memory / 1e9:.1f} GB of memory, of which {here.memory / 1e9:.1f} are available"
    return ""
