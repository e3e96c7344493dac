"""The tables: columns of figures, words for what is missing, reasons below."""

from __future__ import annotations

from benchmarks.limits import LIMITS
from benchmarks.scenario import Group, Metric, Scenario
from benchmarks.tables import cell, group_table, limits_table, markdown

RATE = Metric("rate", "", "tasks/s", more_is_better=True)
TIME = Metric("time", "until told", "ms")
SCENARIO = Scenario("some", "2 workers", (RATE, TIME), lambda _new, _quick: {})
GROUP = Group("group", "Group", "What it is.", (SCENARIO,))
STANDARD = [{"values": {"rate": 10.0, "time": 4.0}}, {"values": {"rate": 20.0, "time": 4.0}}]
OURS = [{"values": {"rate": 30.0, "time": 1.0}}, {"values": {"rate": 40.0, "time": 2.0}}]
HANGS = [{"verdict": "hangs", "reason": "it waits"}]


def test_columns_are_as_wide_as_they_need():
    assert markdown([["", "a"], ["long", "b"]]) == "|      | a |\n|------|---|\n| long | b |"


def test_a_cell_has_median_spread_and_the_paired_ratio():
    assert cell(RATE, OURS, STANDARD, False) == "35 (30-40) 2.50x"
    assert cell(TIME, OURS, STANDARD, False) == "1.50 (1-2) 3x"
    assert cell(RATE, STANDARD, STANDARD, True) == "15 (10-20)"
    assert cell(RATE, OURS[:1], STANDARD, False) == "30 3x"


def test_a_cell_without_figures_says_why():
    assert cell(RATE, HANGS, STANDARD, False) == "hangs"
    assert cell(RATE, [], STANDARD, False) == "-"
    assert cell(RATE, [{"values": {"time": 1.0}}], STANDARD, False) == "-"


def test_a_group_has_a_row_for_each_contender_and_reasons_below():
    table = group_table(GROUP, {"some": {"standard": STANDARD, "ours": OURS, "mpire": HANGS, "loky": HANGS}})
    lines = table.splitlines()
    assert [line.split("|")[1].strip() for line in lines[:6] if "--" not in line] == [
        "",
        "pidfdpool",
        "ProcessPoolExecutor (fork)",
        "loky",
        "mpire",
    ]
    assert "2 workers, tasks/s" in lines[0]
    assert "2 workers, until told (ms)" in lines[0]
    assert lines[-1] == "* hangs: it waits: loky, mpire."


def test_a_reason_says_where_it_is_one_and_a_column_without_figures_is_left_out():
    other = Scenario("other", "4 workers", (RATE,), lambda _new, _quick: {})
    group = Group("group", "Group", "What it is.", (SCENARIO, other))
    table = group_table(group, {"some": {"ours": OURS, "loky": HANGS}, "other": {"ours": HANGS, "loky": OURS}})
    assert "* hangs: it waits: pidfdpool (4 workers), loky (2 workers)." in table
    assert "4 workers" not in group_table(group, {"some": {"ours": OURS}, "other": {"ours": HANGS}}).splitlines()[0]


def test_what_was_not_run_has_no_table():
    assert group_table(GROUP, {}) == ""
    assert limits_table(LIMITS, {}) == ""


def test_limits_have_their_units():
    table = limits_table(LIMITS, {"pipes": [{"values": {"value": 7.0}}, {"values": {"value": 9.0}}]})
    assert "µs" in table
    assert "8 (7-9)" in table
