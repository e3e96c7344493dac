"""Medians, spread, and ratios of the same round."""

from __future__ import annotations

import pytest

from benchmarks.figures import Summary, known, ratios, summarized, values_of, verdict, written


def test_a_summary_has_the_median_and_both_ends():
    assert summarized([3.0, 1.0, 2.0]) == Summary(2.0, 1.0, 3.0)
    assert summarized([]) is None


def test_values_are_those_of_one_metric_by_round():
    rounds = [{"values": {"rate": 1.0}}, {"verdict": "hangs", "reason": "it waits"}, {"values": {"other": 2.0}}]
    assert values_of(rounds, "rate") == [1.0, None, None]
    assert known(values_of(rounds, "rate")) == [1.0]
    assert verdict(rounds) == ("hangs", "it waits")
    assert verdict(rounds[:1]) is None


def test_ratios_pair_the_rounds_and_more_than_one_is_better():
    assert ratios([20.0, 30.0], [10.0, 10.0], more_is_better=True) == [2.0, 3.0]
    assert ratios([20.0, 5.0], [10.0, 10.0], more_is_better=False) == [0.5, 2.0]


@pytest.mark.parametrize(
    ("values", "baseline"), [([None], [1.0]), ([1.0], [None]), ([0.0], [1.0]), ([1.0], [0.0]), ([1.0], [])]
)
def test_a_round_that_cannot_be_compared_has_no_ratio(values, baseline):
    assert ratios(values, baseline, more_is_better=True) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (8.0, "8"),
        (0.1234, "0.123"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (123.4, "123"),
        (1234567.8, "1,234,568"),
    ],
)
def test_figures_are_written_with_three_digits_or_all_before_the_point(value, text):
    assert written(value) == text
