"""Contenders take turns; who could not do it is not asked again."""

from __future__ import annotations

from benchmarks.rounds import missing_modules, run
from benchmarks.scenario import Scenario


def scenario(**options):
    return Scenario("some", "", (), lambda _new, _quick: {}, **options)


def test_contenders_take_turns():
    asked = []

    def measured(name, contender, bound, quick):
        asked.append((contender, bound, quick))
        return {"values": {"turn": float(len(asked))}}

    answers = run(scenario(bound=5), ("a", "b"), 2, True, measured)
    assert asked == [("a", 5, True), ("b", 5, True)] * 2
    assert [answer["values"]["turn"] for answer in answers["b"]] == [2.0, 4.0]


def test_who_could_not_do_it_is_not_asked_again():
    answers = run(scenario(), ("a",), 3, True, lambda *_: {"verdict": "hangs", "reason": "it waits"})
    assert len(answers["a"]) == 1


def test_a_long_scenario_has_fewer_rounds():
    assert len(run(scenario(rounds=1), ("a",), 3, True, lambda *_: {"values": {}})["a"]) == 1


def test_modules_that_are_not_there_are_named():
    assert missing_modules(scenario(needs=("json", "no_such_module"))) == ["no_such_module"]
