"""Two builds beside each other: they take turns, and the table has medians of both with their ratio."""

from __future__ import annotations

import pytest

from benchmarks import aims, comparison
from benchmarks.comparison import OTHER, THIS, ratio, side, sides_of
from benchmarks.contenders import CONTENDERS
from benchmarks.rounds import run
from benchmarks.scenario import Metric
from benchmarks.scenarios.catalogue import SCENARIOS

RATE = Metric("rate", "", "tasks/s", more_is_better=True)


def answers(key, *values):
    return [{"values": {key: value}} for value in values]


def rows(results):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in comparison.table(results).splitlines()]


@pytest.mark.parametrize("contender", ["ours", "ours-fork", "without-tasks-ahead"])
def test_a_side_is_a_contender_with_a_build(contender):
    assert sides_of(side(contender, OTHER)) == (contender, OTHER)


def test_both_builds_of_a_contender_are_neighbours_and_begin_in_turn():
    asked = []

    def measured(name, its_side, *_):
        asked.append((name, its_side))
        return {"values": {}}

    stages = comparison.stages([(SCENARIOS["first-result"], ["ours", "ours-fork"])], 2)
    assert list(run(stages, True, measured)) == [0, 1]
    both = {frozenset(asked[place : place + 2]) for place in range(0, len(asked), 2)}
    assert both == {
        frozenset(("first-result", side(way, build)) for build in (THIS, OTHER)) for way in ("ours", "ours-fork")
    }
    first = [its_side for _, its_side in asked if sides_of(its_side)[0] == "ours"]
    assert first == ["ours@this", "ours@other", "ours@other", "ours@this"]


def test_a_scenario_has_as_many_rounds_as_the_others_and_both_builds_have_all_of_them():
    (stage,) = comparison.stages([(SCENARIOS["lazy-map"], ["ours"])], 5)
    assert SCENARIOS["lazy-map"].rounds == 1
    assert stage.count == 5
    assert set(stage.always) == {"ours@this", "ours@other"}


def test_answers_of_a_scenario_are_kept_together_by_side():
    stages = comparison.stages([(SCENARIOS["submit-2"], ["ours", "ours-fork"])], 1)
    assert comparison.gathered(stages) == {}
    stages[0].answers["ours@this"] = answers("rate", 1.0)
    stages[1].answers["ours-fork@other"] = answers("rate", 2.0)
    assert comparison.gathered(stages) == {
        "submit-2": {"ours@this": answers("rate", 1.0), "ours-fork@other": answers("rate", 2.0)}
    }


def test_a_row_has_the_medians_of_both_and_their_ratio():
    results = {
        "submit-2": {
            "ours@this": answers("rate", 200.0, 300.0, 400.0),
            "ours@other": answers("rate", 100.0, 200.0, 100.0),
        }
    }
    head, _, row = rows(results)
    assert head == ["scenario", "contender", "figure", "this", "other", "ratio"]
    assert row == ["submit-2", "pidfdpool", "tasks/s", "300 (200-400)", "100 (100-200)", "2x (1.50-4)"]


def test_the_ratio_is_that_of_rounds_turned_so_that_more_than_one_is_better_here():
    assert ratio(RATE, answers("rate", 20.0), answers("rate", 10.0)) == "2x"
    less = Metric("p50", "", "µs")
    assert ratio(less, answers("p50", 20.0), answers("p50", 10.0)) == "0.500x"


def test_what_cannot_be_compared_has_no_ratio():
    lost = Metric("lost", "", "of 10", compared=False)
    assert ratio(lost, answers("lost", 1.0), answers("lost", 2.0)) == "-"
    assert ratio(RATE, answers("rate", 1.0), ()) == "-"


def test_a_build_that_cannot_do_it_is_named_with_the_reason():
    results = {
        "bounded-16": {
            "ours@this": answers("rate", 100.0),
            "ours@other": [{"verdict": "fails", "reason": "TypeError: no buffersize"}],
        }
    }
    lines = rows(results)
    assert lines[2] == ["bounded-16", "pidfdpool", "items/s", "100", "fails", "-"]
    assert lines[-1] == ["* fails: TypeError: no buffersize: bounded-16, pidfdpool, other."]


def test_nothing_measured_makes_no_table():
    assert comparison.table({}) == ""


def test_a_page_names_both_builds():
    of = {"path": "/here", "version": "2"}, {"path": "/there/pidfdpool-1.whl", "version": "1"}
    text = comparison.page(
        {
            "machine": {
                "date": "2026-01-01", "cpu": "some", "cores": 2, "load": 0.5, "kernel": "6", "python": "3.13",
                "versions": {}, "documents": "made up",
            },
            "against": dict(zip((THIS, OTHER), of, strict=True)),
            "quick": True,
            "rounds": 5,
            "budget": 3.0,
            "left_out": ["argument-2.2gb needs memory"],
            "results": {},
        }
    )  # fmt: skip
    assert "* this: /here, version 2\n* other: /there/pidfdpool-1.whl, version 1\n" in text
    assert "Python 3.13. JSON documents" in text
    assert "as many as 3 minutes allow (quick" in text
    assert "argument-2.2gb needs memory" in text
    assert "Nothing was measured" in text


def test_what_was_aimed_at_is_held_against_the_ratios_and_against_this_build_alone():
    results = {
        "bounded-1000": {"ours@this": answers("rate", 150.0, 300.0), "ours@other": answers("rate", 10.0, 10.0)},
        "first-result": {"ours@this": [{"values": {"first": 10.0, "submitted": 4.0}}]},
        "many-100": {"ours-fork@this": answers("ready", 100.0, 100.0)},
        "many-1000": {"ours-fork@this": answers("ready", 1200.0, 1300.0)},
    }
    lines = comparison.parts(results)[-1].splitlines()[2:]
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in lines] == [
        ["map, at most 1,000 inputs ahead", "bounded-1000", "15x", "22.5x", "reached"],
        ["submit returns, exec way", "first-result", "at most 3 ms", "4 ms", "missed"],
        [
            "1,000 workers, fork way: time until ready", "many-1000",
            "at most 13 x that of 100", "12.5 x that of 100", "reached",
        ],
    ]  # fmt: skip


@pytest.mark.parametrize("aim", aims.AIMS, ids=lambda aim: aim.title)
def test_aims_are_about_what_is_measured(aim):
    assert aim.figure.key == aim.metric
    assert aim.unit is None or not aim.figure.more_is_better
    assert aim.per is None or aim.per in SCENARIOS
    assert aim.contender in CONTENDERS
