"""What the command line selects."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.arguments import planned
from benchmarks.contenders import CONTENDERS
from benchmarks.scenarios.catalogue import GROUPS, SCENARIOS
from tests.conditions import ROOT


def test_all_of_it_by_default():
    plan = planned([], "")
    assert plan.scenarios == tuple(SCENARIOS)
    assert plan.contenders == tuple(CONTENDERS)
    assert (plan.rounds, plan.limits, plan.quick) == (5, True, False)


def test_quick_is_a_part_of_it():
    plan = planned(["--quick"], "")
    assert set(plan.scenarios) < set(SCENARIOS)
    assert {"ours", "standard"} <= set(plan.contenders) < set(CONTENDERS)
    assert plan.rounds == 2


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("first-result", ("first-result",)),
        ("latency", ("latency-steady", "latency-gaps")),
        ("many", ("many-100", "many-300", "many-1000")),
        ("map-1", ("map-100k", "map-1m")),
    ],
)
def test_a_scenario_a_group_or_a_part_of_names(name, found):
    assert planned(["--scenario", name], "").scenarios == found


def test_chosen_ones_keep_the_order_of_all():
    plan = planned(
        ["--contender", "standard", "--contender", "ours", "--scenario", "crash", "--scenario", "submit"], ""
    )
    assert plan.contenders == ("ours", "standard")
    assert plan.scenarios[0] == "submit-1"


def test_the_budget_is_minutes():
    assert planned(["--budget", "1.5"], "").seconds == 90
    assert planned([], "").seconds is None


def test_against_another_build_all_scenarios_but_those_with_tricks_left_out_by_ours_alone():
    plan = planned(["--against", ROOT], "")
    assert plan.against == Path(ROOT)
    assert plan.scenarios == tuple(name for name in SCENARIOS if not name.startswith("trick-"))
    assert (plan.contenders, plan.rounds) == (("ours",), 5)


def test_against_another_build_a_quick_run_has_enough_rounds_for_a_median():
    assert planned(["--against", ROOT, "--quick"], "").rounds == 5


def test_against_another_build_scenarios_and_ways_can_be_chosen():
    ways = ("ours-fork", "standard", "without-spinning")
    chosen = [part for way in ways for part in ("--contender", way)]
    plan = planned(["--against", ROOT, *chosen, "--scenario", "trick-latency"], "")
    assert set(plan.contenders) == set(ways)
    assert plan.scenarios == ("trick-latency",)


def test_files_are_paths():
    plan = planned(["--json", "a.json", "--page", "b.md", "--plots", "c", "--from", "d.json"], "")
    assert (plan.json, plan.page, plan.plots, plan.read) == (Path("a.json"), Path("b.md"), Path("c"), Path("d.json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds must be at least 1, not 0"),
        (["--budget", "0"], "--budget must be more than 0, not 0"),
        (["--contender", "nobody"], "there is no contender 'nobody'"),
        (["--scenario", "nothing"], "no scenario has 'nothing' in its name"),
        (["--against", "/no/such/build"], "--against: /no/such/build does not exist"),
        (["--against", ROOT, "--contender", "loky"], "--against compares builds of ours, and loky is none"),
        (["--against", ROOT, "--plots", "folder"], "--plots draws nothing of --against"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        planned(arguments, "")
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_names_are_unique_and_no_group_has_the_name_of_a_scenario():
    names = [scenario.name for group in GROUPS for scenario in group.scenarios]
    assert len(names) == len(set(names))
    assert not {group.name for group in GROUPS} & set(names)
