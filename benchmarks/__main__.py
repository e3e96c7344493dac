"""Times process pools against each other.

    python -m benchmarks --quick                        a first impression, in under two minutes
    python -m benchmarks --budget 20 --json run.json    as much of all and as often as 20 minutes allow
    python -m benchmarks --from run.json --page docs/performance.md --plots docs/plots    the page; measures nothing
    python -m benchmarks --from other.json --page docs/performance-newest.md --of docs/performance.md   another Python
    python -m benchmarks --scenario latency --contender ours --contender standard --rounds 9
    python -m benchmarks --against ../before --scenario submit --scenario latency    this checkout and another build
    python -m benchmarks --list

Contenders that are not installed are left out; `pip install '.[bench]'` has them all. The JSON documents are pieces
of the files *.json in the folder that the environment variable PIDFDPOOL_BENCH_DATA names, and made up without it.

Every measurement is a process of its own, and contenders take turns, so that what else the machine does meets all of
them. The JSON is written after each round, the tables when all is done, or at Ctrl-C.

`--against` installs this checkout and another build of ours (a checkout's directory or a wheel) as compiled copies
into temporary environments, without network, and measures both in turn. The table says how much better this one is.
`--page` and `--json` write it. Nothing named: all scenarios, by ours alone; `--contender ours-fork` is the other way,
and `--contender standard`, which is the same in both, shows what chance does.

"-": the contender cannot do it, or `--budget` left no time for it; "hangs": it waits for ever; "slow": it was given
up while it still computed; "fails": it raised. The reasons are below the table. A contender that failed in one round
is not asked again.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pidfdpool
from benchmarks import against, comparison, isolation, machine, page, rounds
from benchmarks.arguments import Plan, planned
from benchmarks.builds import BadBuildError
from benchmarks.contenders import BASELINE, CONTENDERS, OURS
from benchmarks.limits import LIMITS
from benchmarks.measure import NO_CONTENDER
from benchmarks.rounds import Stage
from benchmarks.scenarios.catalogue import GROUPS
from benchmarks.selection import Here, selected


def _list() -> None:
    for group in GROUPS:
        print(f"{group.title}: {' '.join(scenario.name for scenario in group.scenarios)}")
    for kind in CONTENDERS.values():
        print(f"{kind.name}: {kind.title}{'' if kind.installed() else ' (not installed)'}")


def _measure(plan: Plan) -> dict[str, Any]:
    """Run the plan and return everything; the JSON is written after each round."""
    selection = selected(plan.scenarios, plan.contenders, _here())
    stages = [
        Stage(
            scenario,
            contenders,
            min(plan.rounds, scenario.rounds or plan.rounds),
            always=scenario.contenders or (OURS, BASELINE, *scenario.always),
        )
        for scenario, contenders in selection.runs
    ]
    pools = [name for name in CONTENDERS if any(name in stage.contenders for stage in stages)]
    run: dict[str, Any] = {
        "machine": machine.described(pools),
        "quick": plan.quick,
        "rounds": plan.rounds,
        "budget": plan.budget,
        "left_out": selection.left_out,
        "limits": {},
        "results": {},
    }
    print(page.head(run), flush=True)
    machine.compile_sources(Path(__file__).parent, Path(pidfdpool.__file__).parent)
    limits = [Stage(limit.as_scenario(), (NO_CONTENDER,), plan.rounds) for limit in LIMITS.values() if plan.limits]
    with suppress(KeyboardInterrupt):  # what is there by then is shown and written all the same
        for _ in rounds.run([*limits, *stages], plan.quick, isolation.measured, plan.seconds):
            _gather(run, limits, stages)
            _store(run, plan)
    _gather(run, limits, stages)
    return run


def _here() -> Here:
    contenders = {name for name, kind in CONTENDERS.items() if kind.installed()}
    return Here(contenders, machine.available_memory(), lambda name: find_spec(name) is not None)


def _gather(run: dict[str, Any], limits: Sequence[Stage], stages: Sequence[Stage]) -> None:
    """Put into the run what was answered so far."""
    run["limits"] = {stage.scenario.name: stage.answers[NO_CONTENDER] for stage in limits if stage.answers}
    run["results"] = {stage.scenario.name: stage.answers for stage in stages if stage.answers}


def _store(run: dict[str, Any], plan: Plan) -> None:
    if plan.json:
        plan.json.write_text(json.dumps(run, indent=1) + "\n")


def _measured_anew(plan: Plan) -> dict[str, Any]:
    """Measure what the plan says, print the tables, and return everything."""
    isolation.adopt_orphans()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # nothing may be left then, either
    if plan.against is None:
        run = _measure(plan)
        print("\n" + "\n\n".join(page.results(run, None, None)), flush=True)
        return run
    try:
        run = against.measured(plan, _here(), lambda so_far: _store(so_far, plan))
    except BadBuildError as error:
        sys.exit(f"python -m benchmarks: error: --against: {error}")
    print("\n" + "\n\n".join(comparison.parts(run["results"])), flush=True)
    return run


def main() -> None:
    """Measure, or read what was measured, and write what was asked for."""
    plan = planned(None, __doc__ or "")
    if plan.list_only:
        _list()
        return
    run = json.loads(plan.read.read_text()) if plan.read else _measured_anew(plan)
    _store(run, plan)
    if plan.plots:
        from benchmarks import plots  # matplotlib is wanted for nothing else

        for path in plots.draw(run["results"], plan.plots):
            print(f"drawn: {path}", file=sys.stderr)
    if plan.page:
        plan.page.parent.mkdir(parents=True, exist_ok=True)
        text = comparison.page(run) if "against" in run else page.written(run, plan.page, plan.plots, plan.of)
        plan.page.write_text(text)


if __name__ == "__main__":
    main()
