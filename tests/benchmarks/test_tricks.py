"""Each trick can be left out of the pool as it is, and the pool works without it."""

from __future__ import annotations

import ast
import json
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.contenders import CONTENDERS, LEFT_OUT, POOLS
from benchmarks.scenarios.ablation import ABLATION, of_trick
from benchmarks.scenarios.catalogue import GROUPS
from benchmarks.tricks import TRICKS, Patch, StaleTrickError, Trick
from pidfdpool.scheduler.policy import PoolOptions
from tests.conditions import run_python

WORKLOAD = """
def work(pool):
    for future in [pool.submit(time.sleep, 0.02) for _ in range(2)]:
        future.result()
    single = [pool.submit(abs, -number).result() for number in range(20)]
    many = [pool.submit(abs, -number) for number in range(2000)]
    large = [pool.submit(len, bytes(2_000_000)) for _ in range(3)]
    slow = [pool.submit(time.sleep, seconds) for seconds in [0.05] + [0.001] * 30]
    assert single == list(range(20))
    assert [future.result() for future in many] == list(range(2000))
    assert [future.result() for future in large] == [2_000_000] * 3
    assert [future.result() for future in slow] == [None] * 31
    assert list(pool.map(abs, range(0, -500, -1))) == list(range(500))
    assert list(pool.map(abs, iter(range(-500, 0)), buffersize=200)) == list(range(500, 0, -1))
    assert list(pool.options(timeout=30).map(abs, range(-50, 0))) == list(range(50, 0, -1))
    assert len(pool.submit(bytes, 1_000_000).result()) == 1_000_000
    occupied = [pool.submit(time.sleep, 0.5) for _ in range(2)]
    waiting = [pool.submit(abs, number) for number in range(500)]
    cancelled = [future.cancel() for future in waiting]
    assert any(cancelled)
    left = [number for number in range(500) if not cancelled[number]]
    assert [waiting[number].result() for number in left] == left
    assert [future.result() for future in occupied] == [None] * 2
    assert asyncio.run(together(pool)) == list(range(300))

async def together(pool):
    assert [await pool.run(abs, -number) for number in range(300)] == list(range(300))
    return await asyncio.gather(*[pool.run(abs, -number) for number in range(300)])
"""


def run(code):
    done = run_python(f"import asyncio, json, time\nfrom benchmarks.contenders import CONTENDERS\n{WORKLOAD}\n{code}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.costly_table
@pytest.mark.parametrize("name", LEFT_OUT)
def test_the_pool_works_without_it(name):
    run(
        f"kind = CONTENDERS[{name!r}]\n"
        "kind.prepare()\n"
        "for patch in kind.trick.patches:\n"
        "    owner, attribute = patch.target()\n"
        "    placed = getattr(owner, attribute)\n"
        "    assert patch.around and placed.__module__ == 'benchmarks.tricks' or placed is patch.instead\n"
        "contender = kind(2)\n"
        "work(contender.pool)\n"
        "contender.close()\n"
    )


def test_what_is_replaced_is_what_the_pool_calls():
    """A name that is still there, but that nobody asks any more, would leave nothing out.

    Template and workers are asked as well: copies of this process share what is counted.
    """
    called = json.loads(
        run(
            "import mmap\n"
            "from benchmarks.tricks import TRICKS\n"
            "counts = mmap.mmap(-1, 4096)\n"
            "paths = []\n"
            "def counted(path, real):\n"
            "    place = len(paths)\n"
            "    paths.append(path)\n"
            "    def call(*given, **options):\n"
            "        counts[place] = 1\n"
            "        return real(*given, **options)\n"
            "    return call\n"
            "for patch in [patch for trick in TRICKS for patch in trick.patches]:\n"
            "    owner, name = patch.target()\n"
            "    real = getattr(owner, name)\n"
            "    if patch.path not in paths and isinstance(real, property):\n"
            "        setattr(owner, name, property(counted(patch.path, real.fget)))\n"
            "    elif patch.path not in paths and callable(real):\n"
            "        setattr(owner, name, counted(patch.path, real))\n"
            "for name in sorted({'ours', *(trick.beside for trick in TRICKS)}):\n"
            "    kind = CONTENDERS[name]\n"
            "    kind.prepare()\n"
            "    contender = kind(2)\n"
            "    work(contender.pool)\n"
            "    contender.close()\n"
            "print(json.dumps({path: counts[place] for place, path in enumerate(paths)}))\n"
        )
    )
    assert set(called) == {
        patch.path for trick in TRICKS for patch in trick.patches if not isinstance(patch.instead, (int, float))
    }
    assert all(called.values()), called


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (Patch("pidfdpool.no_such", "name", 0), "pidfdpool.no_such has no name"),
        (Patch("pidfdpool.scheduler", "Machine.no_such", print), "pidfdpool.scheduler has no Machine.no_such"),
        (Patch("pidfdpool.scheduler", "NoSuch.may_nap", print), "pidfdpool.scheduler has no NoSuch.may_nap"),
        (Patch("pidfdpool.loop.decisions", "Decisions.may_lead", print), "is a property now, not a function"),
        (Patch("pidfdpool.scheduler.prefetch", "MAX_BATCH", 1.0), "is a int now, not a float"),
    ],
)
def test_a_name_that_is_gone_or_has_changed_its_kind_is_an_error(patch, message):
    with pytest.raises(StaleTrickError, match=message):
        Trick("some", "some", patches=(patch,)).leave_out()


def test_an_option_that_does_not_exist_is_an_error():
    with pytest.raises(StaleTrickError, match="the constructor has no no_such"):
        Trick("some", "some", options={"no_such": 0}).leave_out()


def test_a_trick_by_an_option_that_this_pool_does_not_have_is_none(monkeypatch):
    trick = Trick("some", "some", options={"later": 0}, chosen="later")
    assert not trick.exists
    monkeypatch.setitem(PoolOptions.__annotations__, "later", int)
    assert trick.exists


def test_only_its_own_group_has_ours_with_any_trick_left_out():
    assert ABLATION.contenders == ("ours", "ours-fork", *LEFT_OUT)
    assert ABLATION.baseline == "ours"
    for group in GROUPS:
        if group is not ABLATION:
            assert set(group.contenders) & set(LEFT_OUT) <= {"without-segments"}  # as while they are all in use
            assert group.baseline in POOLS
    assert set(LEFT_OUT) < set(CONTENDERS)
    assert "without-tasks-ahead" in LEFT_OUT


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.name)
def test_each_trick_is_left_out_where_it_matters_beside_the_pool_that_has_it(trick):
    scenarios = {scenario.name.removeprefix("trick-"): scenario for scenario in ABLATION.scenarios}
    assert trick.shown_by
    for name in trick.shown_by:
        assert {trick.beside, of_trick(trick)} <= set(scenarios[name].contenders)
    complete, without = CONTENDERS[trick.beside], CONTENDERS[of_trick(trick)]
    assert without.method == complete.method
    kept = {} if complete.trick is None else complete.trick.options
    assert {**kept, **trick.options} == trick.options


def test_a_scenario_that_shows_tricks_is_gone_through_by_nobody_else():
    for scenario in ABLATION.scenarios:
        shown = [trick for trick in TRICKS if scenario.name.removeprefix("trick-") in trick.shown_by]
        assert set(scenario.contenders) == {trick.beside for trick in shown} | set(map(of_trick, shown))


def test_a_number_that_is_replaced_is_one_that_is_looked_at():
    numbers = [patch for trick in TRICKS for patch in trick.patches if isinstance(patch.instead, (int, float))]
    assert len(numbers) == 10
    for patch in numbers:
        tree = ast.parse(Path(import_module(patch.module).__file__).read_text())
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        names = {node.id for function in functions for node in ast.walk(function) if isinstance(node, ast.Name)}
        assert patch.path in names, patch
