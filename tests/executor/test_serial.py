"""SerialExecutor: calls are made in this process, at submit, and everything else is as with a pool."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import logging
import os
import pickle
import signal
import threading
import time

import pytest

import pidfdpool
from pidfdpool import (
    CallNotSendable,
    PidfdPoolExecutor,
    PoolBroken,
    PoolOptions,
    SerialExecutor,
    TaskOptions,
    WorkerCrashed,
    current_task,
)
from tests import calls
from tests.conditions import held_by_another_thread, in_forked_child


def noted(log: list, value: object) -> object:
    log.append(value)
    return value


def fail(log: list, times: int, kind: type[BaseException] = ValueError) -> int:
    log.append(current_task().attempt)
    if len(log) <= times:
        raise kind(len(log))
    return len(log)


def crash_elsewhere() -> None:
    raise WorkerCrashed("in another pool", task="work", task_id=1, attempt=1)


# ---- the interface -------------------------------------------------------------------------------------------------


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_it_has_every_method_of_a_pool_and_its_views_and_futures_have_theirs():
    assert public(PidfdPoolExecutor) <= public(SerialExecutor)
    assert public(pidfdpool.Options) <= public(type(SerialExecutor().options()))
    assert public(pidfdpool.Future) <= public(type(SerialExecutor().submit(abs, 1)))


def test_its_constructor_takes_what_a_pools_does():
    ours, pools = (inspect.signature(kind).parameters for kind in (SerialExecutor, PidfdPoolExecutor))
    assert set(ours) == {*pools, "check_pickling"}
    for name, parameter in pools.items():
        assert (ours[name].default, ours[name].kind) == (parameter.default, parameter.kind), name


WRONG = [
    {"max_workers": 0},
    {"max_workers": "2"},
    {"mp_context": "thread"},
    {"initializer": 3},
    {"initializer": abs, "initargs": 3},
    {"preload": 3},
    {"preload": "..json"},
    {"preload": (abs, abs)},
    {"timeout": -1},
    {"timeout": 1, "grace": 2},
    {"max_workers": 2, "min_workers": 3},
    {"on_crash": "explode"},
    {"threads_per_worker": 0},
    {"time_out": 3},
    {"retry_on": int},
]


@pytest.mark.parametrize("options", WRONG, ids=str)
def test_it_refuses_what_a_pool_refuses_in_the_same_words(options):
    errors = []
    for kind in (PidfdPoolExecutor, SerialExecutor):
        with pytest.raises((TypeError, ValueError)) as raised:
            kind(**options)
        errors.append((type(raised.value), str(raised.value).replace(kind.__name__, "")))
    assert errors[0] == errors[1]


def test_check_pickling_is_true_or_false():
    with pytest.raises(TypeError, match="check_pickling must be True or False, not 'yes'"):
        SerialExecutor(check_pickling="yes")


@pytest.mark.parametrize("name", sorted(set(PoolOptions.__annotations__) - set(TaskOptions.__annotations__)))
def test_its_views_refuse_options_of_the_pool(name):
    with pytest.raises(TypeError, match=name):
        SerialExecutor().options(**{name: 1})


def test_a_view_stays_as_it_is_and_does_not_shut_down():
    executor = SerialExecutor(timeout=60)
    with executor.options(retries=2) as view:
        with pytest.raises(AttributeError, match="does not change"):
            view.retries = 3
        assert view.options(priority=3).submit(abs, -2).result() == 2
    view.shutdown(cancel_futures=True)
    assert view.submit(abs, -1).result() == 1
    assert "timeout=60, retries=2" in repr(view)


# ---- calls ---------------------------------------------------------------------------------------------------------


def test_a_call_is_made_at_submit_in_the_callers_thread():
    log: list = []
    with SerialExecutor() as executor:
        future = executor.submit(noted, log, "value")
        assert log == ["value"]
        assert future.done()
        assert future.result() == "value"
        assert executor.submit(threading.get_ident).result() == threading.get_ident()
        assert executor.submit(os.getpid).result() == os.getpid()
        assert executor.submit(dict, fn=1, self=2).result() == {"fn": 1, "self": 2}


def test_a_future_is_done_and_no_worker_has_run_it():
    before = time.time()
    future = SerialExecutor().submit(abs, -3)
    assert isinstance(future, concurrent.futures.Future)
    assert (future.worker, future.attempt) == (None, 1)
    assert before <= future.started_at <= time.time()
    assert not future.cancel()
    assert not future.kill()
    assert concurrent.futures.wait([future]).done == {future}
    assert list(concurrent.futures.as_completed([future])) == [future]
    seen: list = []
    future.add_done_callback(seen.append)
    assert seen == [future]
    assert "state=finished returned int, attempt 1" in repr(future)
    with pytest.raises(TypeError, match="cannot copy or pickle 'SerialFuture' object"):
        pickle.dumps(future)


def test_an_exception_is_the_outcome_and_its_traceback_begins_in_the_call():
    future = SerialExecutor().submit(calls.double, None)
    error = future.exception()
    assert type(error) is TypeError
    assert error.__traceback__.tb_frame.f_code is calls.double.__code__
    with pytest.raises(TypeError):
        future.result()


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, StopIteration, MemoryError])
def test_every_other_exception_is_an_outcome_too(kind):
    executor = SerialExecutor()
    assert type(executor.submit(fail, [], 5, kind).exception()) is kind
    assert executor.submit(abs, -1).result() == 1


def test_ctrl_c_and_handlers_that_raise_interrupt_the_submit():
    def stop(_number, _frame):
        raise SystemExit(3)

    executor = SerialExecutor()
    with pytest.raises(KeyboardInterrupt):
        executor.submit(signal.raise_signal, signal.SIGINT)
    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(SystemExit):
            executor.submit(signal.raise_signal, signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_any_exception_of_a_handler_is_raised_by_the_submit_and_not_tried_again():
    log = []

    def stop(number, _frame):
        log.append(number)
        raise TimeoutError("of the handler")

    before = signal.signal(signal.SIGALRM, stop)
    try:
        executor = SerialExecutor(retries=3, retry_on=(Exception,), retry_backoff=0)
        with pytest.raises(TimeoutError, match="of the handler"):
            executor.submit(signal.raise_signal, signal.SIGALRM)
        with pytest.raises(TimeoutError, match="of the handler"):
            executor.map(signal.raise_signal, [signal.SIGALRM], return_exceptions=True)
        assert len(log) == 2
        assert type(executor.submit(fail, [], 5, TimeoutError).exception()) is TimeoutError, "it is the call's own"
        interrupted = SerialExecutor(initializer=signal.raise_signal, initargs=(signal.SIGALRM,))
        with pytest.raises(TimeoutError, match="of the handler"):
            interrupted.submit(abs, -1)
        assert interrupted.stats().broken is None
    finally:
        signal.signal(signal.SIGALRM, before)
    assert executor.stats().running == 0
    assert current_task() is None
    assert executor.submit(abs, -1).result() == 1


def test_a_call_may_submit_and_shut_down():
    with SerialExecutor() as executor:

        def outer():
            inner = executor.submit(lambda: (current_task().id, executor.stats().running))
            executor.shutdown()
            return current_task().id, inner.result()

        assert executor.submit(outer).result() == (1, (2, 2))
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(abs, 1)


def test_threads_make_their_calls_beside_each_other():
    barrier = threading.Barrier(4, timeout=30)

    def meet():
        barrier.wait()
        number = current_task().id
        barrier.wait()
        return number == current_task().id

    with SerialExecutor() as executor, concurrent.futures.ThreadPoolExecutor(4) as threads:
        futures = list(threads.map(lambda _: executor.submit(meet), range(4)))
    assert [future.result() for future in futures] == [True] * 4
    assert executor.stats().finished == 4


def test_nothing_holds_arguments_and_results_when_the_future_is_gone():
    import weakref

    class Thing:
        pass

    thing = Thing()
    seen = weakref.ref(thing)
    executor = SerialExecutor()
    future = executor.submit(lambda value: [value], thing)
    del thing, future
    assert seen() is None


# ---- what options do -----------------------------------------------------------------------------------------------


def test_attempts_are_made_as_often_as_the_options_say():
    log: list = []
    executor = SerialExecutor(retries=2, retry_on=ValueError, retry_backoff=0)
    future = executor.submit(fail, log, 2)
    assert (future.result(), future.attempt, log) == (3, 3, [1, 2, 3])
    assert executor.stats().retries == 2
    assert type(executor.submit(fail, [], 3).exception()) is ValueError
    assert executor.submit(fail, [], 1, KeyError).attempt == 1, "it is not in retry_on"
    assert SerialExecutor(retries=2).submit(fail, [], 1).attempt == 1, "by default only deaths are retried"
    assert SerialExecutor(retries=2).submit(crash_elsewhere).attempt == 1, "of its own worker, not of another's"
    assert executor.options(retries=0).submit(fail, [], 1).attempt == 1


def test_pauses_between_attempts_grow(monkeypatch):
    pauses: list = []
    monkeypatch.setattr("pidfdpool.executor.serial_calls.time.sleep", pauses.append)
    view = SerialExecutor().options(retries=3, retry_on=ValueError, retry_backoff=1, retry_backoff_limit=3)
    view.submit(fail, [], 5)
    assert pauses == [1, 2, 3]


def test_a_call_is_told_its_deadline_and_nobody_enforces_it():
    executor = SerialExecutor()
    assert executor.submit(current_task).result().deadline is None
    task = executor.options(timeout=100).submit(current_task).result()
    assert task.deadline == pytest.approx(time.monotonic() + 100, abs=50)
    assert executor.options(timeout=1e-9, deadline=1e-9).submit(abs, -1).result() == 1
    assert current_task() is None


def test_the_preload_and_the_initializer_run_once_at_the_first_submit(monkeypatch):
    log: list = []
    monkeypatch.delitem(__import__("sys").modules, "colorsys", raising=False)
    executor = SerialExecutor(
        initializer=noted, initargs=iter((log, "initializer")), preload=["colorsys", lambda: log.append("preload")]
    )
    assert log == []
    assert "colorsys" not in __import__("sys").modules
    executor.submit(noted, log, "call")
    executor.submit(noted, log, "call")
    assert log == ["preload", "initializer", "call", "call"]
    assert "colorsys" in __import__("sys").modules


def test_prestart_runs_them_too():
    log: list = []
    executor = SerialExecutor(3, initializer=noted, initargs=(log, 1))
    assert executor.prestart() == 3
    assert executor.prestart(2, wait=False, timeout=1) == 2
    assert log == [1]
    with pytest.raises(ValueError, match="workers must not exceed max_workers: 4 > 3"):
        executor.prestart(4)


def test_an_initializer_may_submit():
    executor = SerialExecutor(initializer=lambda: log.append(executor.submit(abs, -5).result()))
    log: list = []
    assert executor.submit(abs, -1).result() == 1
    assert log == [5]


@pytest.mark.parametrize("what", ["initializer", "preload"])
def test_one_that_fails_breaks_the_executor(what, caplog):
    executor = SerialExecutor(**{what: lambda: {}["missing"]})
    with caplog.at_level(logging.CRITICAL, "concurrent.futures"):
        error = executor.submit(abs, -1).exception()
    assert type(error) is PoolBroken
    assert what in str(error)
    assert type(error.__cause__) is KeyError
    assert ("Exception in initializer:" in caplog.text) is (what == "initializer")
    for _ in range(2):
        with pytest.raises(PoolBroken):
            executor.submit(abs, -1)
    with pytest.raises(PoolBroken):
        executor.prestart()
    assert (executor.stats().state, what in executor.stats().broken) == ("CLOSED", True)
    assert repr(executor).startswith("<SerialExecutor broken")


def test_an_interrupted_initializer_runs_again():
    log: list = []

    def begin():
        log.append(1)
        if len(log) == 1:
            signal.raise_signal(signal.SIGINT)

    executor = SerialExecutor(initializer=begin)
    with pytest.raises(KeyboardInterrupt):
        executor.submit(abs, 1)
    assert executor.submit(abs, -1).result() == 1
    assert log == [1, 1]


def test_stats_resize_workers_and_subscribers():
    executor = SerialExecutor(2)
    assert executor.stats() == pidfdpool.Stats(size=2)
    executor.submit(abs, 1)
    executor.submit(calls.double, None)
    executor.resize(5)
    assert executor._max_workers == 5
    assert executor.stats() == pidfdpool.Stats(state="OPEN", size=5, submitted=2, finished=2)
    with pytest.raises(ValueError, match="max_workers must be greater than 0, not 0"):
        executor.resize(0)
    assert executor.workers() == ()
    executor.subscribe(print)()
    with pytest.raises(TypeError, match="callback must be a callable, not 3"):
        executor.subscribe(3)
    executor.kill_workers()
    assert executor.stats().state == "CLOSED"
    assert repr(executor) == "<SerialExecutor shut down, 2 calls made>"


def test_no_repr_raises():
    class Unspeakable(type):
        def __eq__(cls, other):
            raise RuntimeError("no")

        __hash__ = type.__hash__

    view = SerialExecutor().options(retry_on=Unspeakable("Odd", (Exception,), {}))
    assert "retry_on=" in repr(view)
    assert repr(type(view).__new__(type(view))) == "<SerialView not initialized>"
    assert repr(SerialExecutor.__new__(SerialExecutor)) == "<SerialExecutor not initialized>"


def test_nothing_of_the_process_is_touched():
    before = threading.active_count(), dict(os.environ), signal.getsignal(signal.SIGCHLD)
    with SerialExecutor(4, threads_per_worker=1) as executor:
        executor.submit(abs, 1)
        assert (threading.active_count(), dict(os.environ), signal.getsignal(signal.SIGCHLD)) == before


def test_it_works_in_a_forked_child_and_in_a_worker():
    executor = SerialExecutor()
    executor.submit(abs, 1)
    pid = os.fork()
    if not pid:
        os._exit(executor.submit(abs, -7).result())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    with PidfdPoolExecutor(1) as pool:
        assert pool.submit(_in_a_worker).result() == ((2, 1), (1, 1), 4)


def test_a_forked_child_does_not_wait_for_locks_that_a_thread_of_its_parent_held():
    executor = SerialExecutor(initializer=abs, initargs=(1,))
    with held_by_another_thread(executor._calls._counting, executor._calls._preparing):
        assert in_forked_child(lambda: executor.submit(abs, -1).result()) == "ok"
    assert executor.submit(abs, -1).result() == 1


def _in_a_worker():
    inner = SerialExecutor(retries=1, retry_on=ValueError, retry_backoff=0)
    inner.submit(abs, 1)
    seen = inner.submit(current_task).result()
    return tuple(seen[:2]), tuple(current_task()[:2]), inner.submit(abs, -4).result()


# ---- for asyncio ---------------------------------------------------------------------------------------------------


def test_run_and_async_with():
    async def main():
        async with SerialExecutor() as executor:
            assert await executor.run(pow, 2, 10) == 1024
            with pytest.raises(TypeError):
                await executor.options(timeout=3).run(calls.double, None)
            assert await asyncio.get_running_loop().run_in_executor(executor, abs, -3) == 3
        with pytest.raises(RuntimeError):
            await executor.run(abs, 1)
        await executor.aclose()
        await SerialExecutor().aclose(cancel_futures=True)

    asyncio.run(main())


# ---- streams -------------------------------------------------------------------------------------------------------


def counting(most, log):
    try:
        for number in range(most):
            log.append(number)
            yield number
    finally:
        log.append("closed")


def test_a_stream_makes_each_item_when_it_is_asked_for():
    log: list = []
    with SerialExecutor() as pool:
        stream = pool.stream(counting, 3, log)
        assert (next(stream), log) == (0, [0])
        assert pool.stats().running == 1
        assert list(stream) == [1, 2]
        assert (log, list(stream)) == ([0, 1, 2, "closed"], [])
        assert (pool.stats().running, pool.stats().finished) == (0, 1)


def test_a_stream_that_is_left_closes_its_generator():
    log: list = []
    for number in SerialExecutor().options(timeout=5).stream(counting, 3, log):
        assert number == 0
        break
    assert log == [0, "closed"]
    with SerialExecutor().stream(counting, 3, log) as stream:
        next(stream)
    assert log[2:] == [0, "closed"]
    assert list(stream) == []


def test_a_coroutine_reads_a_stream():
    async def read():
        return [item async for item in SerialExecutor().stream(range, 3)]

    assert asyncio.run(read()) == [0, 1, 2]


def same_list(most):
    items: list = []
    for number in range(most):
        items.append(number)
        yield items


def test_with_pickling_items_are_copies_and_what_cannot_be_sent_is_refused():
    pool = SerialExecutor(check_pickling=True)
    assert list(pool.stream(same_list, 3)) == [[0], [0, 1], [0, 1, 2]]
    assert len({id(item) for item in SerialExecutor().stream(same_list, 3)}) == 1
    with pytest.raises(CallNotSendable):
        pool.stream(range, threading.Lock())
    with pytest.raises(TypeError, match="lock"):
        list(pool.stream(locks))


def locks():
    yield threading.Lock()


def test_wrong_arguments_of_streams_are_refused():
    pool = SerialExecutor()
    for arguments, options, error, text in (
        ((3,), {}, TypeError, "callable, not 3"),
        ((range, 3), {"buffersize": 0}, ValueError, "buffersize must be >= 1, not 0"),
        ((abs, -3), {}, TypeError, "abs returned 3"),
    ):
        with pytest.raises(error, match=text):
            pool.stream(*arguments, **options)
