"""What the executor without processes counts, tells and refuses, call by call; and who lets go of what."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import sys
import threading
import time
import weakref

import pytest

from pidfdpool import CallNotSendable, Outcome, PayloadError, PoolBroken, SerialExecutor, Stats, current_task
from tests import calls
from tests.executor.test_serial_maps import Ticks, taken_from


class Thing:
    pass


def raise_it(error):
    raise error


def fail_times(log, times):
    log.append(current_task())
    if len(log) <= times:
        raise ValueError(len(log))
    return len(log)


# ---- the numbers -----------------------------------------------------------------------------------------------


def test_stats_count_each_call_once_whatever_comes_of_it():
    executor = SerialExecutor(3, check_pickling=True)
    seen: list = []
    assert executor.stats() == Stats(size=3)
    executor.submit(abs, -1)
    executor.submit(divmod, 1, 0)
    assert type(executor.submit(abs, threading.Lock()).exception()) is CallNotSendable
    assert executor.stats() == Stats(state="OPEN", size=3, submitted=3, finished=2), "one was not made"
    plain = SerialExecutor(3)
    plain.submit(lambda: seen.append(plain.stats()))
    assert seen == [Stats(state="OPEN", size=3, submitted=1, pending=1, running=1)]


def test_a_call_that_is_interrupted_is_no_longer_running():
    executor = SerialExecutor()
    with pytest.raises(KeyboardInterrupt):
        executor.submit(__import__("signal").raise_signal, 2)
    stats = executor.stats()
    assert (stats.submitted, stats.running, stats.pending, stats.finished) == (1, 0, 0, 0)


def test_a_call_knows_its_number_its_attempt_and_until_when_it_is_wanted(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("pidfdpool.executor.serial_calls.time.monotonic", lambda: now[0])
    monkeypatch.setattr("pidfdpool.executor.serial_calls.time.sleep", lambda seconds: now.__setitem__(0, now[0] + 1))
    executor = SerialExecutor(retries=2, retry_on=ValueError, retry_backoff=0)
    for options, expected in (
        ({}, [None] * 3),
        ({"deadline": 50}, [150.0] * 3),
        ({"timeout": 7}, [107.0, 108.0, 109.0]),
        ({"timeout": 7, "deadline": 50}, [107.0, 108.0, 109.0]),
    ):
        now[0], seen = 100.0, []
        future = executor.options(**options).submit(fail_times, seen, 2)
        assert [task.deadline for task in seen] == expected
        assert [task.attempt for task in seen] == [1, 2, 3]
        assert len({task.id for task in seen}) == 1
        assert (future.attempt, future.result()) == (3, 3)
    assert seen[0].id == 4
    assert executor.stats().retries == 8


def test_only_what_was_named_is_tried_again():
    named = SerialExecutor(retries=1, retry_on=LookupError, retry_backoff=0)
    for error, attempts in ((KeyError("one"), 2), (ValueError("another"), 1)):
        assert named.submit(raise_it, error).attempt == attempts
    assert named.stats().retries == 1


def test_inside_of_a_call_another_has_its_own_number_and_the_first_has_its_back():
    executor = SerialExecutor()

    def outer():
        before = current_task()
        inner = executor.submit(current_task).result()
        with contextlib.suppress(ValueError):
            executor.submit(raise_it, ValueError()).result()
        return before, inner, current_task()

    before, inner, after = executor.submit(outer).result()
    assert (before.id, inner.id) == (1, 2)
    assert after == before
    assert current_task() is None


# ---- what goes through pickling --------------------------------------------------------------------------------


def test_an_error_is_a_copy_if_calls_are_pickled_and_itself_if_not():
    error = LookupError("with", "arguments")
    assert SerialExecutor().submit(raise_it, error).exception() is error
    copy = SerialExecutor(check_pickling=True).submit(raise_it, error).exception()
    assert (type(copy), copy.args, copy is error) == (LookupError, error.args, False)
    assert "raise_it" in str(copy.__cause__)
    unmade = SerialExecutor(check_pickling=True).submit(calls.raise_new, "TwoArguments", 1, 2).exception()
    assert isinstance(unmade, (PayloadError, Exception))
    assert type(unmade) is not calls.TwoArguments, "it cannot be rebuilt"


def test_a_result_that_cannot_be_pickled_or_rebuilt_is_an_error_of_its_call():
    executor = SerialExecutor(check_pickling=True)
    refused = executor.submit(calls.make, "Unpicklable")
    assert type(refused.exception()) is TypeError
    unread = executor.submit(calls.make, "Unloadable")
    assert type(unread.exception()) is PayloadError
    assert (refused.attempt, unread.attempt, executor.stats().finished) == (1, 1, 2)
    assert type(SerialExecutor().submit(calls.make, "Unpicklable").result()) is calls.Unpicklable


# ---- the preload and the initializer ---------------------------------------------------------------------------


def test_what_breaks_the_executor_is_told_with_its_traceback_and_is_the_cause(caplog):
    executor = SerialExecutor(initializer=raise_it, initargs=(LookupError("at the start"),))
    with caplog.at_level(logging.CRITICAL, "concurrent.futures"):
        first = executor.submit(abs, 1)
    (record,) = caplog.records
    assert record.getMessage() == "Exception in initializer:"
    assert record.exc_info[0] is LookupError
    text = "the pool is broken and runs no more tasks: the initializer raised: LookupError('at the start')"
    assert str(first.exception()) == text
    assert (first.attempt, first.started_at) == (0, None)
    for use in (lambda: executor.submit(abs, 1), executor.prestart, lambda: executor.stream(range, 1)):
        with pytest.raises(PoolBroken) as raised:
            use()
        assert str(raised.value) == text
        assert type(raised.value.__cause__) is LookupError
    assert executor.stats() == Stats(
        state="CLOSED", size=executor._max_workers, submitted=1, broken=text.partition(": ")[2]
    )
    assert not executor._is_open()
    assert len(caplog.records) == 1, "it is not run again"


def test_a_preload_that_fails_is_named_and_the_initializer_does_not_run(caplog):
    log: list = []
    executor = SerialExecutor(preload="no_such_module_at_all", initializer=log.append, initargs=(1,))
    with pytest.raises(PoolBroken, match="the preload failed: ModuleNotFoundError"):
        executor.prestart()
    assert (log, caplog.records) == ([], [])


def test_an_initializer_that_cannot_be_sent_does_not_run():
    log: list = []
    executor = SerialExecutor(
        mp_context="spawn", check_pickling=True, initializer=lambda _: log.append(1), initargs=(threading.Lock(),)
    )
    with pytest.raises(PoolBroken, match="the initializer or preload cannot be sent to workers"):
        executor.prestart()
    assert log == []


def test_threads_that_submit_first_wait_for_the_initializer_which_runs_once():
    began, go, log = threading.Event(), threading.Event(), []

    def begin():
        began.set()
        assert go.wait(20)
        log.append("initializer")

    executor = SerialExecutor(initializer=begin)
    first = threading.Thread(target=executor.submit, args=(log.append, "first"))
    first.start()
    assert began.wait(20)
    second = threading.Thread(target=executor.prestart)
    second.start()
    go.set()
    for thread in (first, second):
        thread.join(20)
    assert log == ["initializer", "first"]


# ---- the executor ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["shutdown", "terminate_workers", "kill_workers", "aclose", "with", "async with"])
def test_however_it_ends_no_more_calls_are_accepted(how):
    executor = SerialExecutor(2)
    assert executor._is_open()

    async def leave():
        if how == "aclose":
            await executor.aclose()
        else:
            async with executor as same:
                assert same is executor
                assert executor._is_open()

    if how == "with":
        with executor:
            assert executor._is_open()
    elif how in ("aclose", "async with"):
        asyncio.run(leave())
    else:
        getattr(executor, how)()
    assert not executor._is_open()
    assert executor.stats().state == "CLOSED"
    assert repr(executor) == "<SerialExecutor shut down, 0 calls made>"
    for use in (lambda: executor.submit(abs, 1), executor.prestart, lambda: executor.map(abs, [1])):
        with pytest.raises(RuntimeError, match="^cannot schedule new futures after shutdown$"):
            use()


def test_what_is_raised_in_a_block_leaves_it():
    async def fail(submitter):
        async with submitter:
            raise LookupError

    for submitter in (SerialExecutor(), SerialExecutor().options(timeout=3)):
        with pytest.raises(LookupError):
            asyncio.run(fail(submitter))


def test_closing_is_a_shutdown_for_who_overrides_that():
    told: list = []

    class Own(SerialExecutor):
        def shutdown(self, wait=True, *, cancel_futures=False):
            told.append((wait, cancel_futures))

    asyncio.run(Own().aclose(cancel_futures=True))
    asyncio.run(Own().aclose())
    Own().kill_workers()
    Own().terminate_workers()
    assert told == [(True, True), (True, False), (True, False), (True, False)]


def test_it_is_open_and_says_how_many_calls_were_made():
    executor = SerialExecutor(2)
    executor.submit(abs, 1)
    assert repr(executor) == "<SerialExecutor open, 1 calls made>"
    assert repr(executor.options(timeout=3, retries=1)) == "<options(timeout=3, retries=1) of a SerialExecutor>"
    assert repr(executor.options()) == "<options() of a SerialExecutor>"


def test_it_is_told_of_no_death_and_has_nothing_to_trace():
    executor = SerialExecutor()
    assert executor.subscribe(print)() is None
    assert executor.observe(object())() is None
    with pytest.raises(RuntimeError, match=r"nothing to trace to '/tmp/t'\. Use a PidfdPoolExecutor\.$"):
        executor.trace("/tmp/t")


def test_it_has_no_fewer_workers_than_it_is_to_have_at_least():
    executor = SerialExecutor(4, min_workers=2)
    executor.resize(2)
    assert (executor._max_workers, executor.stats().size, executor.prestart()) == (2, 2, 2)
    with pytest.raises(ValueError, match="min_workers must not exceed max_workers: 2 > 1"):
        executor.resize(1)
    assert executor._max_workers == 2


def test_an_option_that_there_is_not_is_named():
    with pytest.raises(TypeError, match=r"SerialExecutor.* 'time_out'"):
        SerialExecutor(time_out=3)


# ---- where no signal module of ours can be asked ---------------------------------------------------------------


def test_elsewhere_than_on_linux_only_ctrl_c_in_the_main_thread_interrupts_a_submit(monkeypatch):
    executor, found = SerialExecutor(), []
    monkeypatch.setattr(sys, "platform", "emscripten")
    try:
        with pytest.raises(KeyboardInterrupt):
            executor.submit(raise_it, KeyboardInterrupt())
        assert type(executor.submit(raise_it, SystemExit(3)).exception()) is SystemExit
        thread = threading.Thread(target=lambda: found.append(executor.submit(raise_it, KeyboardInterrupt())))
        thread.start()
        thread.join()
    finally:
        monkeypatch.undo()
    assert type(found[0].exception()) is KeyboardInterrupt


def test_a_copy_in_a_forked_child_counts_for_itself():
    executor = SerialExecutor()
    executor.submit(abs, 1)
    pid = os.fork()
    if not pid:
        executor.submit(abs, 1)
        os._exit(executor.stats().finished + 10 * executor.stats().submitted)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 22
    assert executor.stats().finished == 1


# ---- maps ------------------------------------------------------------------------------------------------------


def test_what_only_a_loop_can_read_is_refused():
    for form in ("map", "map_unordered"):
        with pytest.raises(TypeError, match="iterable 2 is asynchronous"):
            getattr(SerialExecutor(), form)(pow, [1], Ticks())


def test_calls_of_ordinary_inputs_are_made_at_once_for_a_coroutine_too():
    log: list = []
    executor = SerialExecutor()
    results = executor.amap(log.append, range(3))
    assert log == [0, 1, 2]
    assert taken_from(results) == ([None] * 3, None)
    results = executor.amap(log.append, range(3), buffersize=2)
    assert log == [0, 1, 2, 0, 1]
    assert taken_from(results) == ([None] * 3, None)


def test_a_broken_pool_of_a_calls_own_is_the_outcome_of_that_call():
    error = PoolBroken("of another")
    executor = SerialExecutor()
    for how in ({}, {"buffersize": 1}):
        found = list(executor.map(raise_it, [error, ValueError()], return_exceptions=True, **how))
        assert [outcome.index for outcome in found] == [0, 1]
        assert [type(outcome.error) for outcome in found] == [PoolBroken, ValueError]
    broken = SerialExecutor(initializer=raise_it, initargs=(ValueError(),))
    assert type(taken_from(broken.map(abs, [1], return_exceptions=True))[1]) is PoolBroken
    assert Outcome(0, 1).ok


@pytest.mark.parametrize("buffersize", [1, 5])
def test_nothing_is_left_to_the_collector_of_what_an_iterable_has_raised(buffersize):
    class Error(Exception):
        pass

    def inputs():
        yield 1
        raise Error

    gc.collect()
    gc.disable()
    try:
        try:
            list(SerialExecutor().map(abs, inputs(), buffersize=buffersize))
        except Error as error:
            gone = weakref.ref(error)
        assert gone() is None
    finally:
        gc.enable()


def test_a_result_is_let_go_of_when_the_next_is_asked_for():
    results = SerialExecutor().map(lambda _: Thing(), range(5), buffersize=2)
    thing = weakref.ref(next(results))
    assert thing() is None
    results = SerialExecutor().map(lambda _: Thing(), range(5))
    thing = weakref.ref(next(results))
    assert thing() is None


def test_a_future_tells_when_its_attempt_began():
    before = time.time()
    seen: list = []
    future = SerialExecutor(retries=1, retry_on=ValueError, retry_backoff=0).submit(fail_times, seen, 1)
    assert before <= future.started_at <= time.time()
