"""Times process pools against each other.

    python -m benchmarks --quick                        a first impression, in under two minutes
    python -m benchmarks --json run.json --page docs/performance.md --plots docs/plots      all of it, an hour or so
    python -m benchmarks --from run.json --page FILE    the page and plots anew, without measuring
    python -m benchmarks --scenario latency --contender ours --contender standard --rounds 9
    python -m benchmarks --list

Contenders that are not installed are left out; `pip install '.[bench]'` has them all. The JSON documents are pieces
of the files *.json in the folder that the environment variable PIDFDPOOL_BENCH_DATA names, and made up without it.

Every measurement is a process of its own, and contenders take turns, so that what else the machine does meets all of
them. "-": the contender cannot do it; "hangs": it waits for ever; "slow": it was given up while it still computed;
"fails": it raised. The reasons are below the table. A contender that failed in one round is not asked again.
"""

from __future__ import annotations

import json
import signal
import sys
from contextlib import suppress
from typing import Any

from benchmarks import isolation, page, rounds
from benchmarks.arguments import Plan, planned
from benchmarks.contenders import CONTENDERS
from benchmarks.limits import LIMITS
from benchmarks.machine import described
from benchmarks.measure import NO_CONTENDER
from benchmarks.scenarios.catalogue import GROUPS, SCENARIOS
from benchmarks.tables import group_table, limits_table


def _list() -> None:
    for group in GROUPS:
        print(f"{group.title}: {' '.join(scenario.name for scenario in group.scenarios)}")
    for kind in CONTENDERS.values():
        print(f"{kind.name}: {kind.title}{'' if kind.installed() else ' (not installed)'}")


def _measure(plan: Plan) -> dict[str, Any]:
    """Run the plan, print each table when it is complete, and return everything."""
    contenders = [name for name in plan.contenders if CONTENDERS[name].installed()]
    run: dict[str, Any] = {
        "machine": described(contenders),
        "quick": plan.quick,
        "rounds": plan.rounds,
        "left_out": [
            f"{CONTENDERS[name].title} is not installed" for name in plan.contenders if name not in contenders
        ],
        "limits": {},
        "results": {},
    }
    scenarios = []
    for name in plan.scenarios:
        missing = rounds.missing_modules(SCENARIOS[name])
        if missing:
            run["left_out"].append(f"{name} needs {', '.join(missing)}")
        else:
            scenarios.append(name)
    print(page.head(run), flush=True)
    isolation.adopt_orphans()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # nothing may be left then, either
    if plan.limits:
        for limit in LIMITS.values():
            answers = rounds.run(limit.as_scenario(), (NO_CONTENDER,), plan.rounds, plan.quick, isolation.measured)
            run["limits"][limit.name] = answers[NO_CONTENDER]
        print("\n" + limits_table(LIMITS, run["limits"]), flush=True)
    with suppress(KeyboardInterrupt):  # what is complete is shown and written all the same
        for group in GROUPS:
            for scenario in group.scenarios:
                if scenario.name in scenarios:
                    run["results"][scenario.name] = rounds.run(
                        scenario, contenders, plan.rounds, plan.quick, isolation.measured
                    )
            table = group_table(group, run["results"])
            if table:
                print(f"\n### {group.title}\n\n{group.text}\n\n{table}", flush=True)
    return run


def main() -> None:
    """Measure, or read what was measured, and write what was asked for."""
    plan = planned(None, __doc__ or "")
    if plan.list_only:
        _list()
        return
    run = json.loads(plan.read.read_text()) if plan.read else _measure(plan)
    if plan.json:
        plan.json.write_text(json.dumps(run, indent=1) + "\n")
    if plan.plots:
        from benchmarks import plots  # matplotlib is wanted for nothing else

        for path in plots.draw(run["results"], plan.plots):
            print(f"drawn: {path}", file=sys.stderr)
    if plan.page:
        plan.page.parent.mkdir(parents=True, exist_ok=True)
        plan.page.write_text(page.written(run, plan.page, plan.plots))


if __name__ == "__main__":
    main()
