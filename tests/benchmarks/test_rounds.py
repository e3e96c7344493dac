"""Contenders take turns; who could not do it is not asked again; time that is limited goes to the short scenarios."""

from __future__ import annotations

from types import SimpleNamespace

from benchmarks.rounds import Stage, run
from benchmarks.scenario import Scenario


def scenario(name="some", **options):
    return Scenario(name, "", (), lambda _new, _quick: {}, **options)


def make(stages, measured, **options):
    return list(run(stages, True, measured, **options))


def test_contenders_take_turns_and_another_begins_each_round():
    asked = []

    def measured(name, contender, bound, quick):
        asked.append((contender, bound, quick))
        return {"values": {"turn": float(len(asked))}}

    stage = Stage(scenario(bound=5), ("a", "b"), 2)
    assert make([stage], measured) == [0, 1]
    assert asked == [(contender, 5, True) for contender in "abba"]
    assert [answer["values"]["turn"] for answer in stage.answers["b"]] == [2.0, 3.0]


def test_all_scenarios_have_a_round_before_any_has_another():
    asked = []

    def measured(name, *_):
        asked.append(name)
        return {"values": {}}

    make([Stage(scenario(name), ("a",), 2) for name in ("first", "second")], measured)
    assert sorted(asked[:2]) == sorted(asked[2:]) == ["first", "second"]


def test_who_could_not_do_it_is_not_asked_again():
    stage = Stage(scenario(), ("a",), 3)
    make([stage], lambda *_: {"verdict": "hangs", "reason": "it waits"})
    assert len(stage.answers["a"]) == 1


def test_a_stage_may_have_fewer_rounds():
    stages = [Stage(scenario("one"), ("a",), 1), Stage(scenario("other"), ("a",), 3)]
    assert make(stages, lambda *_: {"values": {}}) == [0, 1, 2]
    assert [len(stage.answers["a"]) for stage in stages] == [1, 3]


def test_some_are_measured_once_whatever_the_budget_and_the_others_only_if_there_is_time(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("benchmarks.rounds.time", SimpleNamespace(monotonic=lambda: clock[0]))
    asked = []

    def measured(name, contender, *_):
        asked.append((name, contender))
        clock[0] += 1.0
        return {"values": {}}

    stages = [Stage(scenario(name), ("ours", "a"), 2) for name in ("first", "second", "third")]
    make(stages, measured, budget=5.0)  # 65 % of it are over after the second
    first, others = asked[:5], asked[5:]
    assert first == [("first", "ours"), ("first", "a"), ("second", "ours"), ("second", "a"), ("third", "ours")]
    assert others == []


def test_who_was_not_measured_in_the_first_round_is_not_in_a_later_one(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("benchmarks.rounds.time", SimpleNamespace(monotonic=lambda: clock[0]))
    costs = iter([7.0])

    def measured(*_):
        clock[0] += next(costs, 0.1)
        return {"values": {}}

    stages = [Stage(scenario(name), ("ours", "a"), 2) for name in ("long", "short")]
    make(stages, measured, budget=10.0)
    assert {name: len(answers) for name, answers in stages[1].answers.items()} == {"ours": 2}


def test_the_scenarios_of_a_quick_run_are_first_if_time_is_limited():
    asked = []

    def measured(name, *_):
        asked.append(name)
        return {"values": {}}

    def stages():
        return [Stage(scenario(name, quick=quick), ("a",), 1) for name, quick in (("sweep", False), ("main", True))]

    make(stages(), measured, budget=1000.0)
    make(stages(), measured)
    assert asked == ["main", "sweep", "sweep", "main"]


def test_others_are_given_up_sooner_if_time_is_limited():
    bounds = {}

    def measured(_name, contender, bound, _quick):
        bounds[contender] = bound
        return {"values": {}}

    make([Stage(scenario(bound=180), ("ours", "a"), 1)], measured, budget=1000.0)
    assert bounds == {"ours": 180, "a": 25}


def test_what_would_not_be_over_in_time_is_left_out(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("benchmarks.rounds.time", SimpleNamespace(monotonic=lambda: clock[0]))

    def measured(name, *_):
        clock[0] += {"short": 1.0, "long": 10.0}[name]
        return {"values": {}}

    stages = [Stage(scenario(name), ("a",), 5, always=("a",)) for name in ("long", "short")]
    make(stages, measured, budget=15.0)  # 11 for the first round, so 4 are left
    assert {stage.scenario.name: len(stage.answers["a"]) for stage in stages} == {"long": 1, "short": 5}


def test_who_takes_long_is_measured_once_if_time_is_limited(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("benchmarks.rounds.time", SimpleNamespace(monotonic=lambda: clock[0]))

    def measured(_name, contender, *_):
        clock[0] += 1.0 if contender == "quick" else 9.0
        return {"values": {}}

    def rounds_of(**options):
        stage = Stage(scenario(), ("quick", "slow", "standard"), 3)
        make([stage], measured, **options)
        return [len(answers) for answers in stage.answers.values()]

    assert rounds_of(budget=1000.0) == [3, 1, 3]
    assert rounds_of() == [3, 3, 3]


def test_who_is_to_be_measured_always_is_measured_though_it_takes_long(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("benchmarks.rounds.time", SimpleNamespace(monotonic=lambda: clock[0]))

    def measured(*_):
        clock[0] += 9.0
        return {"values": {}}

    stage = Stage(scenario(), ("a", "b"), 3, always=("a",))
    make([stage], measured, budget=1000.0)
    assert {name: len(answers) for name, answers in stage.answers.items()} == {"a": 3, "b": 1}
