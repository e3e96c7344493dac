"""Slots, the lists of them, and the counts, alone."""

from __future__ import annotations

import random
from collections import Counter

from pidfdpool.scheduler.states import State
from pidfdpool.scheduler.timers import Timer, Timers
from pidfdpool.scheduler.workforce import MAX_GENERATION, Workforce


def test_slots_are_occupied_from_the_first_and_used_again():
    workforce = Workforce(Timers())
    first, second = workforce.occupy(1.0), workforce.occupy(1.0)
    assert (first.index, second.index, workforce.alive) == (0, 1, 2)
    workforce.vacate(first)
    assert workforce.occupy(2.0) is first
    assert (first.generation, first.state, len(workforce.slots)) == (3, State.STARTING, 2)


def test_the_worker_that_became_idle_last_is_last_in_the_list():
    workforce = Workforce(Timers())
    slots = [workforce.occupy(0.0) for _ in range(3)]
    for slot in (slots[1], slots[0], slots[2]):
        workforce.move(slot, State.IDLE)
    assert workforce.idle == [1, 0, 2]


def test_a_worker_that_is_being_replaced_is_first_in_the_list():
    workforce = Workforce(Timers())
    slots = [workforce.occupy(0.0) for _ in range(2)]
    workforce.move(slots[0], State.IDLE)
    workforce.uncount(slots[1])
    workforce.move(slots[1], State.IDLE)
    assert (workforce.idle, workforce.active) == ([1, 0], 1)


def test_a_worker_that_stops_counts_no_longer_and_waits_for_no_replacement():
    workforce = Workforce(Timers())
    slot = workforce.occupy(0.0)
    workforce.retiring.append(slot)
    workforce.move(slot, State.STOPPING)
    assert (workforce.active, workforce.retiring, workforce.alive) == (0, [], 1)


def test_a_slot_that_is_vacated_keeps_nothing_of_its_worker():
    timers = Timers()
    workforce = Workforce(timers)
    slot = workforce.occupy(0.0)
    slot.pid, slot.task = 100, 5
    slot.ahead.extend((6, 7))
    timers.set((Timer.AGE, slot.generation), 5.0)
    workforce.vacate(slot)
    assert (slot.pid, slot.task, list(slot.ahead), timers.next()) == (None, None, [], None)
    assert (workforce.alive, workforce.active, slot.state) == (0, 0, State.DEAD)


def test_what_a_worker_holds_is_asked_for_by_its_generation():
    workforce = Workforce(Timers())
    slot = workforce.occupy(0.0)
    slot.ahead.extend((6, 7))
    assert workforce.held(0, 1) == [6, 7]
    slot.task = 5
    assert workforce.held(0, 1) == [5, 6, 7]
    assert workforce.held(0, 2) == []


def test_generations_wrap_around_and_pass_over_those_that_live():
    workforce = Workforce(Timers())
    workforce.occupy(0.0)
    workforce._last_generation = MAX_GENERATION - 1
    assert [workforce.occupy(0.0).generation for _ in range(2)] == [MAX_GENERATION, 2]


def test_lists_and_counts_always_agree_with_the_slots():
    draw = random.Random(5)
    workforce = Workforce(Timers())
    for _ in range(3000):
        living = list(workforce.workers())
        if not living or (len(living) < 6 and draw.random() < 0.4):
            workforce.occupy(0.0)
        else:
            slot = draw.choice(living)
            change = draw.choice((workforce.vacate, workforce.uncount, None, None))
            if change is None:
                workforce.move(slot, draw.choice((State.IDLE, State.BUSY, State.STOPPING)))
            else:
                change(slot)
        living = list(workforce.workers())
        counts = Counter(slot.state for slot in living)
        states = [State.STARTING, State.IDLE, State.BUSY, State.STOPPING]
        assert [workforce.counts[state] for state in states] == [counts[state] for state in states]
        assert sorted(workforce.idle) == [slot.index for slot in workforce.slots if slot.state is State.IDLE]
        assert workforce.active == sum(slot.counted for slot in living)
