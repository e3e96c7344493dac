"""The inputs of a map with a buffersize: how many are taken, by whom, and what their errors lead to."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from types import SimpleNamespace

import pytest

from pidfdpool import Policy
from pidfdpool.executor import async_map
from pidfdpool.executor.bounded_inputs import Inputs, Permit


class Counted:
    """Yields numbers, and raises after some of them. Counts what was asked for."""

    def __init__(self, count, error=None):
        self.left, self.error, self.taken = iter(range(count)), error, 0

    def __iter__(self):
        return self

    def __next__(self):
        self.taken += 1
        for number in self.left:
            return number
        raise self.error or StopIteration


def test_what_is_taken_is_held_in_order_and_no_more_than_asked_for():
    source = Counted(5)
    inputs = Inputs(zip(source, "abcdefg", strict=False))
    assert inputs.take(2) == 2
    assert (inputs.held, source.taken, inputs.go_on) == ([(0, "a"), (1, "b")], 2, True)
    assert inputs.take(0) == 0
    assert source.taken == 2
    assert inputs.take(10) == 3
    assert (len(inputs.held), inputs.go_on, inputs.failure) == (5, False, None)
    taken = source.taken
    assert inputs.take(1) == 0
    assert source.taken == taken, "an iterable that has ended is not asked again"


def test_an_error_ends_the_inputs_and_those_before_it_count():
    source = Counted(2, LookupError("of the iterable"))
    inputs = Inputs(zip(source, strict=True))
    assert inputs.take(5) == 2
    assert (inputs.held, inputs.go_on) == ([(0,), (1,)], False)
    assert inputs.failure.args == ("of the iterable",)
    assert inputs.failure.__traceback__.tb_frame.f_code.co_name == "__next__", "it holds no frame of the map"
    assert inputs.take(1) == 0


def given(inputs, results, take):
    """Take as many results as asked for; return them, what was raised, and the iterator."""
    iterator, came = inputs.give_while_taking(results), []
    try:
        came.extend(itertools.islice(iterator, take))
    except Exception as error:
        return came, error, iterator
    return came, None, iterator


def test_each_result_is_given_when_an_input_was_taken_for_it():
    source = Counted(100)
    inputs, results = Inputs(zip(source, strict=True)), [3, 2, 1]
    came, _, iterator = given(inputs, results, 2)
    assert (came, results, source.taken) == ([1, 2], [3], 2)
    assert list(iterator) == [3]
    assert source.taken == 3
    assert inputs.note_end(3, 0)
    assert inputs.go_on


def test_at_the_end_of_the_inputs_the_other_results_are_left_to_others():
    inputs, results = Inputs(zip(Counted(1), strict=True)), [3, 2, 1]
    came, error, _ = given(inputs, results, 3)
    assert (came, error, results) == ([1], None, [3, 2])
    assert inputs.note_end(3, 2)
    assert not inputs.go_on
    assert inputs.failure is None


def test_an_error_of_the_inputs_is_told_from_one_that_was_thrown_in():
    inputs, results = Inputs(zip(Counted(1, LookupError("its own")), strict=True)), [3, 2, 1]
    came, error, _ = given(inputs, results, 3)
    assert (came, results) == ([1], [3, 2])
    assert inputs.note_end(3, len(results), error)
    assert inputs.failure is error
    inputs, results = Inputs(zip(Counted(9), strict=True)), [3, 2, 1]
    given(inputs, results, 1)
    assert not inputs.note_end(3, len(results), LookupError("from outside"))
    assert inputs.go_on
    assert inputs.failure is None


def test_the_two_are_told_apart_also_where_the_permit_has_ended_meanwhile():
    inputs, results = Inputs(zip(Counted(9), strict=True)), [3, 2, 1]
    given(inputs, results, 1)
    inputs.permit.end()  # while the consumer had the first result
    assert not inputs.note_end(3, len(results), LookupError("from outside"))
    assert inputs.go_on
    inputs = Inputs(zip(Counted(1, LookupError("its own")), strict=True))
    results = [3, 2, 1]
    _, error, _ = given(inputs, results, 3)
    inputs.permit.end()  # while the second input was taken
    assert inputs.note_end(3, len(results), error)
    assert inputs.failure is error


def test_where_the_permit_has_ended_nothing_is_taken_any_more():
    source = Counted(9)
    inputs, results = Inputs(zip(source, strict=True)), [3, 2, 1]
    _, _, iterator = given(inputs, results, 1)
    inputs.permit.end()
    assert list(iterator) == []
    assert (source.taken, results) == (1, [3, 2])
    assert inputs.note_end(3, 2)
    assert inputs.go_on, "the consumer looks around, and goes on if it may"


def test_a_permit_that_ends_while_it_is_renewed_stays_ended():
    permit = Permit()
    assert permit.begun() == 0
    left = permit.renew(5)
    next(left)
    assert permit.begun() == 1
    permit.end()
    assert permit.begun() == 1, "what was asked for before"
    assert list(left) == []
    assert list(permit.renew(5)) == []
    assert permit.ended


def test_inputs_that_have_ended_are_let_go_of():
    class Big:
        pass

    big = Big()
    gone = weakref.ref(big)
    inputs = Inputs(zip([big], strict=True))
    del big
    assert inputs.take(5) == 1
    inputs.held.clear()
    gc.collect()
    assert gone() is None


# ---- amap with a limit of pending calls ------------------------------------------------------------------------


class Submitter:
    """Notes the calls, which the test ends."""

    def __init__(self, max_pending=3, *, block=True, refuses_at=None):
        self._policy = Policy(2, max_pending=max_pending, block=block)
        self.calls, self.cancelled, self.refuses_at = [], [], refuses_at
        self.core = SimpleNamespace(watchdog=SimpleNamespace(offered=None))

    def _submitter_ref(self, _lost=None):
        return lambda: self

    def _sizes_chunks(self):
        return self._policy.sizes_chunks

    def _submit_for(self, awaited, _policy, function, arguments, keywords, *, wait):
        assert (keywords, wait) == ({}, False)
        if len(self.calls) == self.refuses_at:
            raise LookupError("refused")
        awaited._attach(self, len(self.calls), False)
        self.calls.append((awaited, function, arguments))

    def note_observer(self):
        pass

    def cancel(self, number, _awaited):
        self.cancelled.append(number)

    def end(self, number, error=None):
        awaited, function, arguments = self.calls[number]
        awaited._resolve(None if error else function(*arguments), error)


def results_of(submitter, source, *, timeout=None, chunksize=None, buffersize=None):
    """Begin an `amap` of abs."""
    return async_map.in_order(submitter, abs, (source,), timeout=timeout, chunksize=chunksize, buffersize=buffersize)


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("chunksize", [1, 3])
def test_calls_are_submitted_as_others_end_whether_or_not_anybody_takes_results(chunksize):
    async def main():
        submitter, source = Submitter(), Counted(10 * chunksize)
        results = results_of(submitter, source, chunksize=chunksize)
        assert (len(submitter.calls), source.taken) == (3, 3 * chunksize)
        for number in range(7):
            submitter.end(number)
            await turns()
            assert len(submitter.calls) == number + 4
        for number in range(7, 10):
            submitter.end(number)
        assert [result async for result in results] == list(range(10 * chunksize))
        assert len(submitter.calls) == 10

    asyncio.run(main())


def test_no_more_inputs_are_taken_ahead_than_the_buffer_holds():
    async def main():
        submitter, source = Submitter(max_pending=100), Counted(50)
        results = results_of(submitter, source, buffersize=4)
        for number in range(10):
            assert (len(submitter.calls), source.taken) == (4 + number, 4 + number)
            for ended in range(len(submitter.calls)):
                if not submitter.calls[ended][0].waiter.done():
                    submitter.end(ended)
            await turns()
            assert source.taken == 4 + number, "nobody has taken a result"
            assert await anext(results) == number

    asyncio.run(main())


def test_without_waiting_all_are_submitted_and_a_refusal_comes_in_its_turn():
    async def main():
        submitter = Submitter(block=False, refuses_at=5)
        with pytest.raises(LookupError, match="refused"):
            results_of(submitter, Counted(10))
        assert sorted(submitter.cancelled) == list(range(5)), "nobody waits for them"

    asyncio.run(main())


def test_an_error_of_the_inputs_comes_behind_the_results_before_it():
    async def main():
        submitter = Submitter()
        results = results_of(submitter, Counted(4, LookupError("no more")))
        for number in range(3):
            submitter.end(number)
            await turns()
        submitter.end(3)
        assert [await anext(results) for _ in range(4)] == [0, 1, 2, 3]
        with pytest.raises(LookupError, match="no more"):
            await anext(results)

    asyncio.run(main())


def test_who_leaves_cancels_what_was_submitted_and_submits_nothing_more():
    async def main():
        submitter, source = Submitter(), Counted(50)
        results = results_of(submitter, source)
        submitter.end(0)
        assert await anext(results) == 0
        submitter.end(1, LookupError("which nobody looks at"))
        await turns()
        before = len(submitter.calls)
        await results.aclose()
        await turns()
        assert len(submitter.calls) == before
        assert sorted(submitter.cancelled) == list(range(2, before))
        assert all(awaited.waiter.done() for awaited, _, _ in submitter.calls)

    asyncio.run(main(), debug=True)


def test_without_a_running_loop_it_begins_when_the_first_result_is_asked_for():
    submitter, source = Submitter(), Counted(2)
    results = results_of(submitter, source)
    assert source.taken == 0

    async def main():
        first = asyncio.ensure_future(anext(results))
        await turns()
        assert len(submitter.calls) == 2
        submitter.end(0)
        submitter.end(1)
        assert [await first, *[result async for result in results]] == [0, 1]

    asyncio.run(main())


def test_a_call_that_takes_too_long_is_cancelled_and_so_are_the_others():
    async def main():
        submitter = Submitter()
        results = results_of(submitter, Counted(50), timeout=0.0)
        with pytest.raises(TimeoutError):
            await anext(results)
        assert sorted(set(submitter.cancelled)) == [0, 1, 2]
        await turns()
        assert len(submitter.calls) == 3, "no other call takes the place of what was cancelled"

    asyncio.run(main())
