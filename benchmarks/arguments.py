"""What the command line of the runner says, and which scenarios and contenders that selects."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.builds import BadBuildError, checked
from benchmarks.contenders import BASELINE, CONTENDERS, OURS, Ours
from benchmarks.scenarios.catalogue import GROUPS, SCENARIOS

_QUICK_CONTENDERS = (OURS, "ours-fork", BASELINE, "mp-pool", "without-tasks-ahead", "without-leader")


@dataclass(frozen=True)
class Plan:
    """What is to be run, and where the results go."""

    scenarios: tuple[str, ...]
    contenders: tuple[str, ...]
    rounds: int
    quick: bool
    limits: bool
    list_only: bool
    budget: float | None  # minutes
    read: Path | None
    json: Path | None
    page: Path | None
    of: Path | None
    plots: Path | None
    against: Path | None  # the other build

    @property
    def seconds(self) -> float | None:
        """Return the budget in seconds."""
        return None if self.budget is None else self.budget * 60


def planned(arguments: Sequence[str] | None, description: str) -> Plan:
    """Read the arguments; print what is wrong with them and exit with 2, if anything is."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer scenarios, contenders, rounds and tasks")
    parser.add_argument(
        "--scenario", action="append", default=[], metavar="NAME", help="a scenario, a group, or a part of names"
    )
    parser.add_argument("--contender", action="append", default=[], metavar="NAME", help="this one only; repeatable")
    parser.add_argument("--rounds", type=int, help="how often each is measured (default: 5; quick, alone: 2)")
    parser.add_argument(
        "--budget",
        type=float,
        metavar="MINUTES",
        help="measure as much as there is time for, the scenarios of a quick run first",
    )
    parser.add_argument("--no-limits", action="store_true", help="do not measure the machine itself")
    parser.add_argument("--list", action="store_true", help="print the names of scenarios and contenders")
    parser.add_argument("--from", dest="read", type=Path, metavar="FILE", help="measure nothing; read this --json")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results of every round")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write everything as a page of Markdown")
    parser.add_argument(
        "--of", type=Path, metavar="PAGE", help="--page has figures only; the remarks are on this one"
    )
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the plots as SVG; needs matplotlib")
    parser.add_argument(
        "--against", type=Path, metavar="PATH", help="compare with another build: a checkout's directory or a wheel"
    )
    given = parser.parse_args(arguments)
    rounds = given.rounds if given.rounds is not None else 2 if given.quick and not given.against else 5
    if rounds < 1:
        parser.error(f"--rounds must be at least 1, not {rounds}")
    if given.budget is not None and not given.budget > 0:
        parser.error(f"--budget must be more than 0, not {given.budget:g}")
    for name in given.contender:
        if name not in CONTENDERS:
            parser.error(f"there is no contender {name!r}; there are {', '.join(CONTENDERS)}")
        if given.against and not _is_of_a_build(name):
            parser.error(f"--against compares builds of ours, and {name} is none")
    if given.against and given.plots:
        parser.error("--plots draws nothing of --against")
    try:
        against = checked(given.against) if given.against else None
    except BadBuildError as error:
        parser.error(f"--against: {error}")
    scenarios = _selected(given.scenario, given.quick, without_tricks=against is not None)
    if not scenarios:
        parser.error(f"no scenario has {' or '.join(map(repr, given.scenario))} in its name; --list tells them")
    usual = (OURS,) if against else _QUICK_CONTENDERS if given.quick else CONTENDERS
    wanted = given.contender or usual
    return Plan(
        scenarios=scenarios,
        contenders=tuple(name for name in CONTENDERS if name in wanted),
        rounds=rounds,
        quick=given.quick,
        limits=not given.no_limits,
        list_only=given.list,
        budget=given.budget,
        read=given.read,
        json=given.json,
        page=given.page,
        of=given.of,
        plots=given.plots,
        against=against,
    )


def _is_of_a_build(name: str) -> bool:
    """Return whether a contender is a way of ours; or of Python's, which shows what chance does."""
    return issubclass(CONTENDERS[name], Ours) or CONTENDERS[name].distribution is None


def _selected(parts: Sequence[str], quick: bool, without_tricks: bool) -> tuple[str, ...]:
    """Return the scenarios that are named; those that are part of a quick run, or all, if none is.

    Where none is named, those with a trick left out can be left out: they are others' scenarios, gone through again.
    """
    if not parts:
        return tuple(
            scenario.name
            for group in GROUPS
            for scenario in group.scenarios
            if (scenario.quick or not quick) and not (without_tricks and group.baseline == OURS)
        )
    named = {name for part in parts for name in _named(part)}
    return tuple(name for name in SCENARIOS if name in named)


def _named(part: str) -> list[str]:
    """Return the scenario of that name, or else those of the group of that name, or those with it in their names."""
    if part in SCENARIOS:
        return [part]
    for group in GROUPS:
        if group.name == part:
            return [scenario.name for scenario in group.scenarios]
    return [name for name in SCENARIOS if part in name]
