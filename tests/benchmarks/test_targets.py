"""The table of what was aimed at is computed from the results, and says what it does not know."""

from __future__ import annotations

import pytest

from benchmarks.contenders import POOLS
from benchmarks.limits import LIMITS
from benchmarks.scenarios.catalogue import SCENARIOS
from benchmarks.targets import TARGETS, Target, table


def answers(key, *values):
    return [{"values": {key: value}} for value in values]


def row(title, results, limits=None):
    for line in table({"results": results, "limits": limits or {}}).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == title:
            return cells[1:]
    return None


SUBMIT = {"standard": answers("rate", 100.0, 200.0), "ours": answers("rate", 1200.0, 2600.0)}


def test_a_ratio_is_the_median_of_those_of_each_round():
    assert row("tiny tasks by submit, 2 workers", {"submit-2": SUBMIT}) == [
        "1x", "-", "12x, at best 20x", "12.5x", "reached"
    ]  # fmt: skip


def test_the_best_other_is_named_and_is_neither_ours_nor_the_baseline():
    others = {
        "ours-fork": answers("rate", 9e9, 9e9),
        "loky": answers("rate", 100.0, 100.0),
        "pebble": answers("rate", 300.0, 600.0),
        "mpire": [{"verdict": "hangs", "reason": "it waits"}],
    }
    assert row("tiny tasks by submit, 2 workers", {"submit-2": {**SUBMIT, **others}})[1] == "3x, pebble"


@pytest.mark.parametrize(("rate", "word"), [(1100.0, "missed"), (1200.0, "reached"), (2000.0, "more than reached")])
def test_it_is_judged(rate, word):
    results = {"submit-2": {"standard": answers("rate", 100.0), "ours": answers("rate", rate)}}
    assert row("tiny tasks by submit, 2 workers", results)[-1] == word


def test_a_ratio_of_times_is_turned_so_that_more_is_better():
    results = {"latency-steady": {"standard": answers("p50", 400.0), "ours": answers("p50", 100.0)}}
    assert row("latency p50", results)[-2:] == ["4x", "reached"]


@pytest.mark.parametrize(("makespan", "word"), [(1.05, "reached"), (1.2, "missed")])
def test_a_figure_with_a_unit_is_shown_as_it_is_and_less_may_be_better(makespan, word):
    results = {
        "skewed-map": {
            "standard": answers("makespan", 1.1),
            "ours": answers("makespan", makespan),
            "loky": answers("makespan", 1.5),
            "pebble": answers("makespan", 1.3),
        }
    }
    assert row("map of unequal tasks, makespan", results) == [
        "1.10 x ideal", "1.30 x ideal, pebble", "at most 1.05 x ideal", f"{makespan:.2f} x ideal", word
    ]  # fmt: skip


def test_others_may_have_gone_another_way():
    results = {
        "asyncio-native": {"ours": answers("burst", 1000.0), "standard": [{"verdict": "-", "reason": "none"}]},
        "asyncio-executor": {
            "ours": answers("burst", 400.0),
            "standard": answers("burst", 100.0),
            "mp-pool": answers("burst", 200.0),
        },
    }
    assert row("asyncio burst, pool.run", results)[1:4] == ["2x, multiprocessing.Pool (fork)", "12x", "10x"]
    assert row("asyncio burst, run_in_executor", results)[3] == "4x"


def test_a_figure_may_be_held_against_the_machine():
    title = "first result without a fork of the host"
    results = {
        "first-result": {
            "ours": answers("first", 30.0),
            "standard": answers("first", 5.0),
            "mp-pool": answers("first", 4.0),
            "loky": answers("first", 100.0),
        }
    }
    cells = row(title, results, {"start": answers("value", 19.0, 21.0)})
    assert cells[1].startswith("5 x `python -c pass`, loky")
    assert cells[3:] == ["1.50 x `python -c pass`", "reached"]
    assert row(title, results) is None  # the limit was not measured


def test_a_figure_may_be_held_against_that_of_another_scenario_in_the_same_round():
    results = {
        "many-100": {"ours": answers("ready", 100.0, 200.0), "standard": answers("ready", 10.0)},
        "many-1000": {"ours": answers("ready", 1200.0, 2800.0), "standard": answers("ready", 400.0)},
    }
    assert row("until 1,000 workers are ready, exec way", results) == [
        "40 x that of 100", "-", "at most 13 x that of 100", "13 x that of 100", "reached"
    ]  # fmt: skip
    assert row("until 1,000 workers are ready, exec way", {"many-1000": results["many-1000"]}) is None


def test_nothing_measured_makes_no_table():
    assert table({"results": {}, "limits": {}}) == ""
    assert table({"results": {"submit-2": {"standard": answers("rate", 1.0)}}, "limits": {}}) == ""


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.title)
def test_targets_are_about_what_is_measured(target: Target):
    assert target.figure.key == target.metric
    assert target.others is None or target.others in SCENARIOS
    assert target.over is None or target.over in LIMITS
    assert {target.ours, *target.peers} <= set(POOLS)


def test_titles_are_unique():
    assert len({target.title for target in TARGETS}) == len(TARGETS)
