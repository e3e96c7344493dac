"""How a call and a stream are pickled, named and given to a pool. With a pool that only takes them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import threading
import weakref
from types import SimpleNamespace

import pytest

from pidfdpool import CallNotSendable, Policy
from pidfdpool.executor import pool_submission, stream
from pidfdpool.executor.context_vars import ContextFuture
from pidfdpool.executor.futures import Future
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.loop.held_arguments import Shared
from pidfdpool.serialization import picklers
from pidfdpool.worker import streaming
from pidfdpool.worker.chunk import call_each
from pidfdpool.worker.task_context import InContext
from tests import calls
from tests.executor.context_variables import REQUEST, see
from tests.executor.stream_pool import bring
from tests.executor.taking_pool import Recipient, TakingPool

POLICY = Policy(2)


def submitted(fn, *args, pool=None, policy=POLICY, wait=True, **kwargs):
    """Return what the pool has taken, or what the recipient was told."""
    pool, recipient = TakingPool() if pool is None else pool, Recipient()
    pool_submission.submit(pool, recipient, policy, (fn, args, kwargs), wait=wait)
    if pool.taken:
        assert recipient.notes == []
        (taken,) = pool.taken
        assert taken.recipient is recipient
        return taken
    begun, (result, error) = recipient.notes
    assert (begun, result) == ("begun", None)
    return error


class Argument:
    """Something that is worth to be kept while its task runs."""


def test_a_call_is_given_to_the_pool_with_its_policy_and_what_is_to_be_kept_of_it():
    argument = Argument()
    for args, kwargs in (((argument, 2), {}), ((), {"key": argument}), ((1,), {"key": 2})):
        taken = submitted(calls.double, *args, **kwargs)
        fn, got, keywords = taken.call
        assert (fn, len(got), list(keywords)) == (calls.double, len(args), list(kwargs))
        assert (taken.policy, taken.function) == (POLICY, calls.double)
        assert taken.held == (calls.double, args, kwargs)


@pytest.mark.parametrize("wait", [False, True])
def test_whether_it_waits_for_room_is_the_submitters_decision(wait):
    assert submitted(calls.double, 1, wait=wait).wait is wait
    assert submitted(calls.double, wait=wait).wait is wait


def test_of_a_plain_function_without_arguments_nothing_is_kept():
    taken = submitted(see)
    assert (taken.function, taken.held) == (see, None)
    assert taken.call == (see, (), {})


def test_what_may_be_something_large_is_kept_by_its_name_only():
    assert submitted(len, "abc").function is len
    bound = submitted([1].append, 2)
    assert bound.function == "list.append"
    assert "double" in submitted(functools.partial(calls.double, 2)).function


def test_what_a_function_alone_shares_with_its_worker_is_kept():
    """A closure may hold a pipe end, which waits to be fetched."""

    def pickled(call, _shared):
        picklers.shared_resources[threading.get_ident()] = [("a key", {})]
        return [b"pickled"]

    pool, held = TakingPool(), []
    pool.leases.pickled = pickled
    pool.submit = lambda *arguments, wait: held.append(arguments[4])
    pool_submission.submit(pool, Recipient(), POLICY, (see, (), {}), wait=True)
    assert picklers.shared_resources == {}
    assert type(held[0]) is Shared


def test_a_chunk_is_sent_as_the_function_that_makes_its_calls_and_named_as_a_chunk():
    chunk = Chunk(call_each, "double", 3, [(1,), (2,)], func=calls.double)
    taken = submitted(chunk, [(1,), (2,)])
    assert taken.call == (call_each, (calls.double, [(1,), (2,)]), {})
    assert taken.function is chunk
    assert taken.held[0] is call_each, "nothing of the chunk is kept twice"


def test_chosen_context_variables_go_with_a_call_once():
    policy = Policy(2, context_vars=[REQUEST])
    token = REQUEST.set("r-1")
    try:
        taken = submitted(see, 1, policy=policy)
        function, arguments, _ = taken.call
        assert type(function) is InContext
        assert (function.func, arguments) == (see, (1,))
        assert [value for *_, value in function.values] == ["r-1"]
        assert taken.function == "tests.executor.context_variables.see"
        again = submitted(InContext(see, ()), policy=policy).call[0]
        assert (again.func, again.values) == (see, ())
        assert submitted(see, 1).call[0] is see, "not without the option"
    finally:
        REQUEST.reset(token)


def test_the_future_of_such_a_call_knows_the_context_of_its_submit():
    token = REQUEST.set("r-1")
    future = pool_submission.context_future()
    REQUEST.reset(token)
    assert type(future) is ContextFuture
    assert future._context[REQUEST] == "r-1"


# ---- what cannot be sent ----------------------------------------------------------------------------------------


def test_what_cannot_be_pickled_is_told_to_the_recipient_and_the_pool_hears_nothing_of_it():
    pool = TakingPool(shared_main := SimpleNamespace())
    pool.leases.pickled = lambda _call, shared: seen.append(shared) or 1 / 0
    seen = []
    error = submitted(calls.double, 1, pool=pool)
    assert type(error) is ZeroDivisionError
    assert "ZeroDivisionError" in str(error.__cause__)
    assert seen == [shared_main]
    assert pool.taken == []
    error = submitted(calls.double, 1, threading.Lock())
    assert type(error) is CallNotSendable
    assert "argument 2 of double()" in str(error)
    assert "argument 'key' of double()" in str(submitted(calls.double, key=threading.Lock()))


def test_a_variable_that_workers_cannot_find_is_told_to_the_recipient():
    import contextvars

    nowhere = contextvars.ContextVar("nowhere")
    contextvars.copy_context().run(nowhere.set, 1)
    policy = Policy(2, context_vars=[nowhere])
    assert submitted(see, policy=policy).function == "tests.executor.context_variables.see", "it is not set here"
    context = contextvars.copy_context()
    context.run(nowhere.set, 1)
    error = context.run(submitted, see, policy=policy)
    assert type(error) is CallNotSendable
    assert "'nowhere'" in str(error)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_ctrl_c_while_a_call_is_pickled_concerns_its_submitter(error):
    def interrupted(_call, _shared):
        raise error

    pool, recipient = TakingPool(), Recipient()
    pool.leases.pickled = interrupted
    with pytest.raises(error):
        pool_submission.submit(pool, recipient, POLICY, (see, (), {}), wait=True)
    assert recipient.notes == []


def test_what_the_pool_refuses_is_raised():
    pool, recipient = TakingPool(), Recipient()
    pool.refusal = LookupError("full")
    with pytest.raises(LookupError, match="full"):
        pool_submission.submit(pool, recipient, POLICY, (see, (1,), {}), wait=True)
    assert recipient.notes == []


# ---- streams ------------------------------------------------------------------------------------------------------


class Owner:
    """Has a pool, and notes which feeds it knows of."""

    def __init__(self, policy=POLICY):
        self._policy, self.pool, self.feeds = policy, TakingPool(), []

    def _register_map(self, feed):
        assert not self.pool.taken, "before its task is submitted: it may end the executor at once"
        self.feeds.append(feed)
        return 2, self.pool


def numbers(most, _other=None):
    yield from range(most)


def test_a_stream_is_one_task_that_runs_the_generator_with_its_room():
    owner = Owner()
    opened = stream.open_stream(owner, numbers, (5, argument := Argument()), 30)
    (taken,) = owner.pool.taken
    run, (function, arguments, room), keywords = taken.call
    assert (run, function, arguments[0], room, keywords) == (streaming.run, numbers, 5, 30, {})
    assert taken.function is numbers, "it is named after the generator"
    assert taken.held == (numbers, (5, argument), {})
    assert taken.wait is True
    assert owner.feeds == [taken.recipient] == [opened._feed]
    assert owner.pool.pickled_with == [owner.pool.recipe.shared_main]
    opened._feed.ended = True


def test_a_stream_is_not_tried_again_whatever_else_is_chosen_for_it():
    owner = Owner(Policy(2, retries=5, timeout=7.0, priority=3))
    stream.open_stream(owner, numbers, (1,), 1)
    policy = owner.pool.taken[0].policy
    assert (policy.retries, policy.timeout, policy.priority) == (0, 7.0, 3)


def test_in_an_event_loop_nothing_waits_for_room():
    async def main():
        owner = Owner()
        stream.open_stream(owner, numbers, (1,), 1)
        return owner.pool.taken[0].wait

    assert asyncio.run(main()) is False


def test_chosen_context_variables_go_with_a_stream():
    owner = Owner(Policy(2, context_vars=[REQUEST]))
    token = REQUEST.set("r-1")
    stream.open_stream(owner, numbers, (1,), 1)
    REQUEST.reset(token)
    run, (function, *_), _ = owner.pool.taken[0].call
    assert (run.func, function) == (streaming.run, numbers)
    assert [value for *_, value in run.values] == ["r-1"]


class Refuses:
    def __reduce__(self):
        raise LookupError("not this one")


def test_a_stream_that_cannot_be_sent_is_refused_with_what_was_wrong():
    """Guards: where in the object's own code its error was raised was lost."""
    owner = Owner()
    with pytest.raises(CallNotSendable, match=r"argument 2 of numbers\(\) \(_thread.lock\)") as raised:
        stream.open_stream(owner, numbers, (1, threading.Lock()), 1)
    assert type(raised.value.__cause__) is TypeError
    with pytest.raises(LookupError, match="not this one") as raised:
        stream.open_stream(owner, numbers, (1, Refuses()), 1)
    assert "in __reduce__" in str(raised.value.__cause__)
    assert owner.pool.taken == []


def test_a_stream_that_was_refused_is_gone_when_its_error_is():
    """Nobody has to wait for the collector: the error's traceback holds frames, and these the arguments."""
    argument = Argument()
    gone = weakref.ref(argument)
    gc.disable()
    try:
        with contextlib.suppress(CallNotSendable):
            stream.open_stream(Owner(), numbers, (argument, threading.Lock()), 1)
        del argument
        assert gone() is None
    finally:
        gc.enable()


def test_what_makes_no_sense_is_refused_before_the_executor_hears_of_it():
    owner = Owner()
    for function, room in ((5, 1), (numbers, 0), (numbers, 2**31 + 1), (numbers, 1.5), (numbers, None)):
        with pytest.raises((TypeError, ValueError)):
            stream.open_stream(owner, function, (1,), room)
    assert owner.feeds == []
    stream.open_stream(owner, numbers, (1,), 2**31)
    assert owner.pool.taken[0].call[1][2] == 2**31


class Twenty:
    """What is like an integer."""

    def __index__(self):
        return 20


def test_the_room_of_a_stream_is_a_plain_number_and_its_reader_tells_of_each_half_of_it():
    """The worker cannot count with whatever a caller has as a number, and a frame for each item costs time."""
    owner, told = Owner(), []
    opened = stream.open_stream(owner, numbers, (1,), Twenty())
    room = owner.pool.taken[0].call[1][2]
    assert (type(room), room) == (int, 20)
    opened._feed.tell_taken = told.append
    bring(opened._feed, *range(25))
    for _ in range(25):
        next(opened)
    assert told == [10, 20]


def test_ctrl_c_while_a_stream_is_pickled_is_passed_on_as_it_is():
    def interrupted(_call, _shared):
        raise KeyboardInterrupt

    owner = Owner()
    owner.pool.leases.pickled = interrupted
    with pytest.raises(KeyboardInterrupt):
        stream.open_stream(owner, numbers, (1,), 1)


def test_a_stream_that_the_pool_does_not_take_is_refused():
    owner = Owner()
    owner.pool.refusal = LookupError("full")
    with pytest.raises(LookupError, match="full"):
        stream.open_stream(owner, numbers, (1,), 1)


def test_a_stream_keeps_its_executor_and_reads_what_its_feed_gets():
    owner = Owner()
    opened = stream.open_stream(owner, numbers, (1,), 10)
    assert opened._owner is owner
    assert not isinstance(opened, Future)
    feed = owner.pool.taken[0].recipient
    feed._resolve(None, None)
    assert list(opened) == []
