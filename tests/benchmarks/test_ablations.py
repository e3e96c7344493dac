"""The table of tricks: which trick is shown by which scenario, and what it is worth there."""

from __future__ import annotations

from benchmarks.ablations import table


def rounds(**values):
    return [{"values": values}]


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_trick_has_a_row_for_each_figure_beside_the_pool_that_has_it():
    results = {
        "trick-latency": {"ours": rounds(p50=40.0), "without-leader": rounds(p50=80.0)},
        "trick-many": {"ours-fork": rounds(ready=300.0), "without-descriptor-ranges": rounds(ready=450.0)},
    }
    head, _, *rows = table(results).splitlines()
    assert cells(head) == ["left out", "shown by", "figure", "complete", "without", "worth"]
    assert list(map(cells, rows)) == [
        ["the leader", "one at a time", "p50 (µs)", "40", "80", "2x"],
        ["closing others' handles by ranges", "1,000 workers; pidfdpool (fork)", "ready (ms)", "300", "450", "1.50x"],
    ]


def test_where_the_complete_pool_was_not_measured_nothing_is_said_of_its_worth():
    _, _, row = table({"trick-latency": {"without-leader": rounds(p50=80.0)}}).splitlines()
    assert cells(row) == ["the leader", "one at a time", "p50 (µs)", "-", "80", "-"]


def test_what_a_pool_went_through_that_says_nothing_of_its_trick_has_no_row():
    assert table({"trick-map": {"ours": rounds(rate=9.0), "without-leader": rounds(rate=9.0)}}) == ""
    assert table({}) == ""
