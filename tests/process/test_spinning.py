"""When to look again before going to sleep."""

from __future__ import annotations

import io
import os
import time

import pytest

from pidfdpool.process import spinning
from pidfdpool.process.spinning import LEADER_LIMIT, TRIAL_INTERVAL, LearningSpin, Spin

LONG = 0.01  # seconds of a spin


class Clock:
    """Time in which a look takes a microsecond, and nothing else any."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(spinning, "time", clock)
    return clock


class Waits:
    """What is waited for, and how often it was looked for."""

    def __init__(self, clock, spin, crowded=False):
        self.clock = clock
        self.spin = spin
        spin._is_crowded = lambda _now: crowded
        self.looks = self.sleeps = 0

    def wait(self, found_after=None, slept=0.0):
        """Wait for something that looking finds at this attempt, or that sleeping for so long does."""
        self.looks = self.sleeps = 0

        def look():
            self.looks += 1
            self.clock.now += 1e-6
            return self.looks == found_after and "looked"

        def sleep():
            self.sleeps += 1
            self.clock.now += slept
            return "slept"

        return self.spin.wait(look, sleep)


class LooseSpin(Spin):
    """One that a test may change."""


class LooseLearningSpin(LearningSpin):
    """The same."""


@pytest.fixture(autouse=True)
def processors(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})


def test_the_first_wait_sleeps_at_once(clock):
    waits = Waits(clock, LooseSpin(LONG))
    assert waits.wait(found_after=1) == "slept"
    assert waits.looks == 0


def test_after_a_short_wait_it_looks_first(clock):
    waits = Waits(clock, LooseSpin(LONG))
    waits.wait()
    assert waits.wait(found_after=3) == "looked"
    assert (waits.looks, waits.sleeps) == (3, 0)
    assert waits.wait(found_after=1) == "looked", "and goes on doing so for as long as it pays"


def test_after_a_long_wait_it_does_not(clock):
    waits = Waits(clock, LooseSpin(LONG))
    waits.wait(slept=2 * LONG)
    assert waits.wait(found_after=1) == "slept"
    assert waits.looks == 0


def test_it_looks_in_vain_once_at_most(clock):
    waits = Waits(clock, LooseSpin(LONG))
    waits.wait()
    assert waits.wait() == "slept"
    assert waits.looks > 0
    assert waits.wait(found_after=1, slept=2 * LONG) == "slept"
    assert waits.looks == 0


@pytest.mark.parametrize("why", ["switched off", "one processor", "crowded"])
def test_it_never_looks_where_that_would_cost_others_something(monkeypatch, clock, why):
    if why == "one processor":
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3})
    waits = Waits(clock, LooseSpin(0.0 if why == "switched off" else LONG), crowded=why == "crowded")
    for _ in range(3):
        assert waits.wait(found_after=1) == "slept"
        assert waits.looks == 0


def test_the_machine_is_crowded_when_more_runs_than_it_has_processors(monkeypatch):
    spin = Spin(LONG)
    assert spin._is_crowded(time.monotonic()) in (True, False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(100_000)))
    assert Spin(LONG)._is_crowded(time.monotonic()) is False
    spin._processors = 0  # this process runs
    assert spin._is_crowded(time.monotonic() + 1000) is True


def test_how_much_runs_is_read_again_after_a_while_and_not_for_each_wait(monkeypatch):
    loads = [b"0.1 0.1 0.1 9/300 1", b"0.1 0.1 0.1 1/300 1"]
    monkeypatch.setattr(spinning, "open", lambda *_: io.BytesIO(loads.pop(0)), raising=False)
    spin = Spin(LONG)
    spin._processors = 2
    assert [spin._is_crowded(100.0 + at) for at in (0.0, 0.05, 0.09, 0.11, 0.15)] == [True] * 3 + [False] * 2
    assert not loads


# ---- where it has to pay -----------------------------------------------------------------------------------------


class Answers:
    """What a leader waits for: it comes after so many seconds, which differ with the way in which it waits."""

    def __init__(self, clock, spin=0.0002, crowded=False):
        self.clock = clock
        self.spin = LooseLearningSpin(spin)
        self.spin._is_crowded = lambda _now: crowded

    def wait(self, looking, sleeping):
        """Wait once; return whether looking found it."""
        comes = self.clock.now + looking

        def look():
            self.clock.now += 1e-6
            return self.clock.now >= comes and "looked"

        def sleep():
            self.clock.now += sleeping
            return "slept"

        return self.spin.wait(look, sleep) == "looked"

    def found_by_looking(self, waits, looking, sleeping):
        """Wait so often; return how many times looking found it."""
        return sum(self.wait(looking, sleeping) for _ in range(waits))


def test_it_goes_on_with_looking_where_that_is_quicker(clock):
    answers = Answers(clock)
    assert answers.found_by_looking(TRIAL_INTERVAL, 20e-6, 40e-6) == 0, "it sleeps at first"
    assert answers.wait(20e-6, 40e-6), "and tries"
    assert answers.found_by_looking(2 * TRIAL_INTERVAL, 20e-6, 40e-6) == 2 * TRIAL_INTERVAL - 2, (
        "two of them try a sleep"
    )


@pytest.mark.parametrize("looking", [39e-6, 60e-6])
def test_it_goes_on_with_sleeping_where_that_is_as_quick(clock, looking):
    answers = Answers(clock)
    answers.found_by_looking(TRIAL_INTERVAL + 1, looking, 40e-6)
    assert answers.found_by_looking(3 * TRIAL_INTERVAL, looking, 40e-6) == 3, "each of which is a try"


def test_it_changes_its_mind(clock):
    answers = Answers(clock)
    for looking, of_one_round in ((60e-6, 1), (20e-6, TRIAL_INTERVAL - 1), (60e-6, 1)):
        answers.found_by_looking(20 * TRIAL_INTERVAL, looking, 40e-6)
        assert answers.found_by_looking(TRIAL_INTERVAL, looking, 40e-6) == of_one_round


def test_long_waits_are_no_reason_to_look(clock):
    answers = Answers(clock)
    assert answers.found_by_looking(5 * TRIAL_INTERVAL, 1e-6, 2 * LEADER_LIMIT) == 0


def test_long_waits_do_not_make_looking_seem_quicker(clock):
    answers = Answers(clock)
    answers.found_by_looking(2 * TRIAL_INTERVAL, 39e-6, 40e-6)
    for _ in range(5):
        answers.wait(1.0, 10 * LEADER_LIMIT)
    assert answers.found_by_looking(TRIAL_INTERVAL, 39e-6, 40e-6) <= 2


def test_it_looks_in_vain_for_a_tenth_of_a_millisecond_at_most(clock):
    answers = Answers(clock)
    answers.found_by_looking(2 * TRIAL_INTERVAL + 3, 20e-6, 40e-6)
    before = clock.now
    assert not answers.wait(1.0, 1.0)
    assert clock.now - before == pytest.approx(1.0 + LEADER_LIMIT, abs=3e-6)
    assert not answers.wait(1e-6, 1.0), "and not again before a wait was short"


@pytest.mark.parametrize("why", ["switched off", "crowded"])
def test_a_leader_never_looks_where_that_would_cost_others_something(clock, why):
    answers = Answers(clock, spin=0.0 if why == "switched off" else 0.0002, crowded=why == "crowded")
    assert answers.found_by_looking(5 * TRIAL_INTERVAL, 1e-6, 40e-6) == 0
