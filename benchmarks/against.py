"""Measures this checkout beside another build of ours, each installed into an environment of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any

from benchmarks import builds, comparison, isolation, machine, rounds
from benchmarks.arguments import Plan
from benchmarks.selection import Here, selected

_BENCHMARKS = Path(__file__).parent


def measured(plan: Plan, here: Here, store: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Run the plan with both builds in turn and return everything; `store` gets it after each round.

    Raises:
        BadBuildError: one of them cannot be measured.
    """
    assert plan.against is not None
    sources = {comparison.THIS: builds.checked(_BENCHMARKS.parent), comparison.OTHER: plan.against}
    selection = selected(plan.scenarios, plan.contenders, here)
    stages = comparison.stages(selection.runs, plan.rounds)
    os.environ.pop("PYTHONPATH", None)  # it comes before what is installed, so both would be the same
    with tempfile.TemporaryDirectory(prefix="pidfdpool-against-") as folder:
        home = Path(folder).resolve()
        both = {build: builds.installed(source, _BENCHMARKS, home / build) for build, source in sources.items()}
        run: dict[str, Any] = {
            "machine": machine.described(()),
            "against": {build: {"path": str(sources[build]), "version": its.version} for build, its in both.items()},
            "quick": plan.quick,
            "rounds": plan.rounds,
            "budget": plan.budget,
            "left_out": selection.left_out,
            "results": {},
        }
        print(comparison.head(run), flush=True)

        def measure(scenario: str, side: str, bound: float, quick: bool) -> dict[str, Any]:
            contender, build = comparison.sides_of(side)
            with chdir(home):  # where `-m` finds nothing but what is installed
                return isolation.measured(scenario, contender, bound, quick, both[build].python)

        with suppress(KeyboardInterrupt):  # what is there by then is shown and written all the same
            for _ in rounds.run(stages, plan.quick, measure, plan.seconds):
                run["results"] = comparison.gathered(stages)
                store(run)
        run["results"] = comparison.gathered(stages)
    return run
