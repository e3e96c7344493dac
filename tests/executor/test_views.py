"""A view of an executor by itself: what it passes on, with which policy. With an executor that takes notes."""

from __future__ import annotations

import asyncio
import copy
import gc
import weakref

import pytest

from pidfdpool import Options, PidfdPoolExecutor, Policy
from pidfdpool.executor.context_vars import ContextFuture
from pidfdpool.executor.futures import Future
from pidfdpool.executor.options import Options as Base
from tests import calls
from tests.executor.context_variables import REQUEST


class Executor:
    """Takes notes of what is submitted, and resolves it at once."""

    def __init__(self, **options):
        self._policy, self.notes = Policy(2, **options), []

    def _submit_for(self, recipient, policy, fn, args, kwargs, *, wait):
        self.notes.append((recipient, policy, fn, args, kwargs, wait))
        recipient._resolve("a result", None)

    def _register_map(self, adaptive_map):
        self.notes.append(adaptive_map)
        return 2, "the pool"

    def shutdown(self, *_, **__):
        raise AssertionError("a view does not own the pool")

    aclose = __exit__ = __aexit__ = shutdown

    def __repr__(self):
        return "<an executor>"


@pytest.fixture
def executor():
    return Executor(timeout=5.0, retry_on=ValueError)


def view_of(executor, **options):
    return Options(executor, executor._policy.refined(options))


def test_a_call_is_submitted_with_the_views_policy_and_waits_for_room(executor):
    view = view_of(executor, priority=3)
    future = view.submit(calls.double, 1, key=2)
    assert executor.notes == [(future, view._policy, calls.double, (1,), {"key": 2}, True)]
    assert view._policy.priority == 3
    assert type(future) is Future
    assert future.result(0) == "a result"


def test_the_future_of_a_call_with_context_variables_has_its_context(executor):
    view = view_of(executor, context_vars=[REQUEST])
    assert type(view.submit(calls.double, 1)) is ContextFuture
    assert type(view.options(context_vars=False).submit(calls.double, 1)) is Future


def test_in_an_event_loop_the_call_waits_for_room_by_itself(executor):
    view = view_of(executor, priority=3)

    async def main():
        return await view.run(calls.double, 1, key=2)

    assert asyncio.run(main()) == "a result"
    ((_, *rest),) = executor.notes
    assert rest == [view._policy, calls.double, (1,), {"key": 2}, False]


@pytest.mark.parametrize("wait", [False, True])
def test_what_others_submit_through_it_has_the_policy_that_they_choose(executor, wait):
    recipient, policy = Future(), Policy(7)
    view_of(executor)._submit_for(recipient, policy, print, (1,), {"a": 2}, wait=wait)
    assert executor.notes == [(recipient, policy, print, (1,), {"a": 2}, wait)]


def test_a_view_of_a_view_is_one_of_the_executor_with_both_rules(executor):
    first = view_of(executor, retries=1)
    second = first.options(timeout=7.0)
    assert second._executor is executor
    assert (second._policy.retries, second._policy.timeout) == (1, 7.0)
    assert (first._policy.retries, first._policy.timeout) == (1, 5.0)
    assert first.options()._policy == first._policy


def test_it_cannot_be_changed(executor):
    view = view_of(executor)
    for name in ("timeout", "_policy", "_executor", "anything"):
        told = f"^cannot set '{name}': a view of a pool does not change. Make another with options"
        with pytest.raises(AttributeError, match=told):
            setattr(view, name, 1)


def test_to_end_it_does_nothing_to_the_executor(executor):
    view = view_of(executor)

    async def main():
        async with view as same:
            assert same is view
        await view.aclose()
        await view.aclose(cancel_futures=True)

    with view as same:
        assert same is view
    view.shutdown()
    view.shutdown(wait=False, cancel_futures=True)
    asyncio.run(main())
    assert view.submit(calls.double, 1).result(0) == "a result"


def test_leaving_a_block_passes_on_what_was_raised_in_it(executor):
    async def main():
        async with view_of(executor):
            raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(main())
    with pytest.raises(LookupError), view_of(executor):
        raise LookupError


def test_a_map_is_registered_with_the_executor(executor):
    adaptive_map = object()
    assert view_of(executor)._register_map(adaptive_map) == (2, "the pool")
    assert executor.notes == [adaptive_map]


class Own(Base):
    """Submits in a way of its own."""

    def submit(self, fn, /, *args, **kwargs):
        return super().submit(fn, *args, **kwargs)


def test_chunks_are_made_only_where_nobody_has_another_way_to_submit(executor):
    """Guards: a subclass that wraps each call would not see the calls of a map."""
    assert view_of(executor)._sizes_chunks() is True
    assert not Own(executor, executor._policy)._sizes_chunks()
    bounded = Executor(max_pending=5)
    assert not view_of(bounded)._sizes_chunks()
    one = Own(executor, executor._policy)
    assert not Own(bounded, bounded._policy)._sizes_chunks()
    assert one.submit(calls.double, 1).result(0) == "a result"


class Wrapping(PidfdPoolExecutor):
    """Submits in a way of its own."""

    def submit(self, fn, /, *args, **kwargs):
        return super().submit(fn, *args, **kwargs)


def test_so_it_is_with_an_executor_itself():
    assert PidfdPoolExecutor(1)._sizes_chunks() is True
    assert not Wrapping(1)._sizes_chunks()
    assert not PidfdPoolExecutor(1, max_pending=5)._sizes_chunks()


def test_a_map_finds_a_view_with_the_same_rules_while_the_executor_is_there(executor):
    view, lost = view_of(executor, priority=3), []
    find = view._submitter_ref(lost.append)
    policy = view._policy
    del view
    found = find()
    assert (found._executor, found._policy) == (executor, policy)
    del found
    reference = weakref.ref(executor)
    other = Executor()
    find_other = view_of(other)._submitter_ref(lost.append)
    assert lost == []
    del other
    gc.collect()
    assert find_other() is None
    assert len(lost) == 1
    assert reference() is executor
    assert find() is not None


def test_a_copy_is_the_view_itself(executor):
    view = view_of(executor, retries=2)
    assert copy.copy(view) is view


def test_it_shows_what_differs_from_the_executor(executor):
    assert repr(view_of(executor)) == "<options() of <an executor>>"
    view = view_of(executor, retries=2, timeout=7.0)
    assert repr(view) == "<options(timeout=7.0, retries=2) of <an executor>>"
    assert repr(view.options(timeout=5.0)) == "<options(retries=2) of <an executor>>"
    assert repr(Options.__new__(Options)) == "<Options not initialized>"
