"""What can be run here, and what is left out for which reason."""

from __future__ import annotations

from benchmarks.selection import Here, selected

EVERYTHING = Here({"ours", "standard", "without-segments"}, 1e12, lambda _name: True)


def names(selection):
    return {scenario.name: contenders for scenario, contenders in selection.runs}


def test_contenders_go_through_the_scenarios_of_their_groups():
    chosen = ("submit-2", "argument-1mb")
    assert names(selected(chosen, ("ours", "without-segments"), EVERYTHING)) == {
        "submit-2": ["ours"],
        "argument-1mb": ["ours", "without-segments"],
    }


def test_who_is_not_installed_is_left_out_and_named():
    found = selected(("submit-2",), ("ours", "loky"), EVERYTHING)
    assert names(found) == {"submit-2": ["ours"]}
    assert found.left_out == ["loky is not installed"]


def test_a_scenario_without_the_module_that_it_needs_is_left_out():
    here = Here(EVERYTHING.contenders, EVERYTHING.memory, lambda name: name != "numpy")
    found = selected(("echo-array-1mb", "echo-bytes-1mb"), ("ours",), here)
    assert names(found) == {"echo-bytes-1mb": ["ours"]}
    assert found.left_out == ["echo-array-1mb needs numpy"]


def test_a_scenario_for_which_there_is_not_enough_memory_is_left_out():
    here = Here(EVERYTHING.contenders, 8e9, lambda _name: True)
    found = selected(("argument-128mb", "argument-2.2gb"), ("ours",), here)
    assert names(found) == {"argument-128mb": ["ours"]}
    assert found.left_out == ["argument-2.2gb needs 13.2 GB of memory, of which 8.0 are available"]


def test_a_scenario_with_nobody_to_go_through_it_is_not_run():
    assert selected(("trick-latency",), ("standard",), EVERYTHING).runs == []


def test_a_scenario_may_be_for_some_of_its_group():
    here = Here({"ours", "without-leader", "without-chunks"}, 1e12, EVERYTHING.has_module)
    found = selected(("trick-latency", "trick-map"), ("ours", "without-leader", "without-chunks"), here)
    assert names(found) == {"trick-latency": ["ours", "without-leader"], "trick-map": ["ours", "without-chunks"]}
