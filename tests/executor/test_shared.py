"""get_shared_executor: one pool for a process, its threads, its forks, and the workers of its pools."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest

from pidfdpool import Options, PidfdPoolExecutor, PoolBroken, SerialExecutor, TaskTimeout, get_shared_executor
from pidfdpool.executor import shared
from tests import calls
from tests.conditions import eventually, held_by_another_thread, in_forked_child, run_python, unseen_fork


@pytest.fixture(autouse=True)
def nothing_shared(monkeypatch):
    """Begin with nothing, and end what a test has shared."""
    monkeypatch.setattr(shared, "_shared", shared._OfProcess())
    yield
    if shared._shared.pool is not None:
        shared._shared.pool.executor.shutdown(cancel_futures=True)


def test_all_get_the_same_pool():
    pool = get_shared_executor(2)
    assert isinstance(pool, PidfdPoolExecutor)
    assert get_shared_executor() is pool
    assert get_shared_executor(2) is pool
    assert pool.submit(calls.double, 3).result() == 6
    assert get_shared_executor() is pool
    assert pool.stats().idle == 1


def test_it_has_the_usual_size_and_workers_leave_when_nobody_needs_them():
    pool = get_shared_executor()
    assert pool._max_workers == PidfdPoolExecutor()._max_workers
    assert pool._policy.idle_timeout == 300


def test_it_grows_and_never_shrinks_and_nobodys_tasks_are_lost(tmp_path):
    pool = get_shared_executor(1)
    held = pool.submit(calls.run_until, str(tmp_path / "a"), str(tmp_path / "go"), "held")
    waiting = [pool.submit(calls.double, number) for number in range(5)]
    assert get_shared_executor(3) is pool
    assert pool._max_workers == 3
    assert [future.result() for future in waiting] == [0, 2, 4, 6, 8], "the new workers took them"
    assert get_shared_executor(2) is pool
    assert pool._max_workers == 3
    (tmp_path / "go").touch()
    assert held.result() == "held"


def test_options_for_tasks_give_a_view_and_concern_nobody_else():
    view = get_shared_executor(1, timeout=0.3, grace=0)
    assert isinstance(view, Options)
    with pytest.raises(TaskTimeout):
        view.submit(calls.hang_in_python).result()
    pool = get_shared_executor()
    assert pool._policy.timeout is None
    assert pool.submit(time.sleep, 0.5).result() is None
    with get_shared_executor(timeout=60) as other:
        assert other.submit(calls.double, 1).result() == 2
    assert pool.submit(calls.double, 1).result() == 2


DIFFERENT = [
    ({}, {"max_tasks_per_child": 5}, "max_tasks_per_child=None", "max_tasks_per_child=5"),
    ({"max_tasks_per_child": 5}, {"max_tasks_per_child": 6}, "max_tasks_per_child=5", "max_tasks_per_child=6"),
    ({}, {"on_crash": "break"}, "on_crash='isolate'", "on_crash='break'"),
    ({}, {"idle_timeout": 5}, "idle_timeout=300.0", "idle_timeout=5"),
    ({"threads_per_worker": 1}, {"threads_per_worker": None}, "threads_per_worker=1", "threads_per_worker=None"),
    ({}, {"mp_context": "fork"}, "mp_context=None", "mp_context='fork'"),
    ({"mp_context": "fork"}, {"mp_context": "spawn"}, "mp_context='fork'", "mp_context='spawn'"),
    ({}, {"initializer": abs}, "initializer=None", "initializer=<built-in function abs>"),
    ({"initializer": abs, "initargs": (1,)}, {"initargs": [2]}, r"initargs=\(1,\)", r"initargs=\(2,\)"),
    ({"preload": "json"}, {"preload": ("json", "re")}, r"preload=\('json',\)", r"preload=\('json', 're'\)"),
]


@pytest.mark.parametrize(("first", "then", "before", "now"), DIFFERENT, ids=range(len(DIFFERENT)))
def test_an_option_of_the_pool_that_differs_is_refused_with_both_values(first, then, before, now):
    pool = get_shared_executor(2, **first)
    with pytest.raises(ValueError, match=f"made with {before}, and {now} is asked for now"):
        get_shared_executor(4, **then)
    assert pool._max_workers == 2
    assert get_shared_executor(**first) is pool
    assert get_shared_executor() is pool


def test_equal_options_are_no_difference():
    options = {
        "mp_context": "spawn",
        "initializer": abs,
        "initargs": [1],
        "preload": iter(["json", calls.double]),
        "max_pending": 100,
        "idle_timeout": 10,
    }
    pool = get_shared_executor(1, **options)
    same = {
        **options,
        "mp_context": "forkserver",
        "initargs": (one for one in [1]),
        "preload": ["json", calls.double],
    }
    assert get_shared_executor(1, **{**same, "idle_timeout": 10.0}) is pool


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_workers": 0}, "max_workers"),
        ({"nested": "threads"}, "nested must be one of 'serial', 'share', 'pool', not 'threads'"),
        ({"nested": None}, "nested"),
        ({"time_out": 3}, "time_out"),
        ({"timeout": -1}, "timeout"),
        ({"period": -1}, "period"),
        ({"mp_context": "thread"}, "mp_context"),
        ({"preload": 3}, "preload"),
        ({"initializer": 3}, "initializer"),
        ({"min_workers": 5}, "min_workers"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_before_and_after_the_pool_is_made(options, told):
    options = {"max_workers": 2, **options}
    for _ in range(2):
        with pytest.raises((TypeError, ValueError), match=told):
            get_shared_executor(**options)
        assert get_shared_executor(2)._max_workers == 2


# ---- its end -------------------------------------------------------------------------------------------------------


def test_leaving_a_block_ends_nothing():
    async def main():
        async with get_shared_executor() as pool:
            return await pool.run(calls.double, 2)

    with get_shared_executor(1) as pool:
        pool.submit(calls.double, 1).result()
    assert asyncio.run(main()) == 4
    assert pool.submit(calls.double, 3).result() == 6
    with pytest.raises(KeyboardInterrupt), pool:
        raise KeyboardInterrupt
    assert get_shared_executor() is pool
    assert pool.submit(calls.double, 3).result() == 6


def test_a_shutdown_finishes_what_was_accepted_and_the_next_call_makes_a_new_pool(tmp_path):
    pool = get_shared_executor(1, max_pending=5)
    future = pool.submit(calls.run_until, str(tmp_path / "a"), str(tmp_path / "go"), "held")
    pool.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.submit(calls.double, 1)
    other = get_shared_executor(2)
    assert other is not pool
    assert other._policy.max_pending is None, "it is a new beginning"
    assert other.submit(calls.double, 1).result() == 2
    (tmp_path / "go").touch()
    assert future.result() == "held"
    unused = get_shared_executor()
    unused.shutdown()
    assert get_shared_executor() is not unused
    get_shared_executor().kill_workers()
    assert get_shared_executor(1).submit(calls.double, 1).result() == 2


def test_a_broken_pool_is_replaced_by_one_of_its_kind():
    pool = get_shared_executor(3, on_crash="break", max_pending=50, initializer=abs, initargs=(1,))
    pool.submit(calls.die).exception()
    eventually(lambda: pool.stats().broken, "it is broken")
    with pytest.raises(PoolBroken):
        pool.submit(calls.double, 1)
    other = get_shared_executor()
    assert other is not pool
    assert (other._max_workers, other._policy.on_crash, other._policy.max_pending) == (3, "break", 50)
    assert other.submit(calls.double, 1).result() == 2
    assert get_shared_executor(initializer=abs, initargs=(1,)) is other
    other.submit(calls.die).exception()
    eventually(lambda: other.stats().broken, "it is broken")
    third = get_shared_executor(1, on_crash="isolate")
    assert (third._max_workers, third._policy.on_crash) == (3, "isolate")


def test_it_is_closed_at_exit_and_what_was_submitted_is_finished(tmp_path):
    path = tmp_path / "done"
    ran = run_python(
        """
        import sys, time
        from pidfdpool import get_shared_executor
        def work(path):
            time.sleep(0.2)
            open(path, "w").close()
        get_shared_executor(1).submit(work, sys.argv[1])
        """,
        str(path),
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert path.exists()


# ---- threads, forks, workers ---------------------------------------------------------------------------------------


def test_threads_get_one_pool_between_them():
    barrier, found = threading.Barrier(8, timeout=30), []

    def ask(number: int) -> None:
        barrier.wait()
        pool = get_shared_executor(1 + number % 3)
        found.append((pool, pool.submit(calls.double, number).result()))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(pool) for pool, _ in found}) == 1
    assert sorted(result for _, result in found) == [2 * number for number in range(8)]
    assert found[0][0]._max_workers == 3


def test_a_thread_that_comes_while_the_pool_is_made_gets_that_one(monkeypatch):
    made, found = [], []
    make = shared.SharedExecutor.__init__
    other = threading.Thread(target=lambda: found.append(get_shared_executor(2)))

    def interrupted(self, *arguments, **options):
        made.append(self)
        if len(made) == 1:
            other.start()
            other.join(0.3)  # without a lock it would be done long before
        make(self, *arguments, **options)

    monkeypatch.setattr(shared.SharedExecutor, "__init__", interrupted)
    pool = get_shared_executor(1)
    other.join(30)
    assert (made, found) == ([pool], [pool])
    assert pool._max_workers == 2


@pytest.mark.parametrize("fork", [os.fork, unseen_fork], ids=["seen", "unseen"])
def test_a_forked_child_has_workers_of_its_own(fork):
    pool = get_shared_executor(1)
    theirs = pool.submit(os.getpid).result()

    def in_child():
        child = get_shared_executor(2)
        assert child._max_workers == 2
        assert child.submit(os.getpid).result() != theirs
        child.shutdown()
        again = get_shared_executor()
        assert again is not child
        assert again.submit(calls.double, 2).result() == 4
        again.shutdown()

    with shared._shared.lock:  # another thread might hold it at the moment
        assert in_forked_child(in_child, fork) == "ok"
    assert pool.submit(os.getpid).result() == theirs
    assert pool._max_workers == 1


def test_a_child_that_another_thread_of_the_parent_would_lock_out_is_not():
    with held_by_another_thread(shared._shared.lock):
        assert in_forked_child(lambda: get_shared_executor(1).shutdown()) == "ok"


def nested_kind(**options) -> tuple[str, int, object, bool]:
    executor = get_shared_executor(**options)
    same = executor is get_shared_executor(**options)
    return type(executor).__name__, executor._max_workers, executor.submit(os.getpid).result() == os.getpid(), same


def test_in_a_worker_calls_are_made_in_place_unless_asked_otherwise(way, monkeypatch):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        assert pool.submit(nested_kind).result() == ("SharedSerialExecutor", _cpus(), True, True)
        assert pool.submit(nested_kind, max_pending=7, nested="pool", max_workers=3).result()[:3] == (
            "SharedExecutor",
            3,
            False,
        )


def _cpus() -> int:
    return PidfdPoolExecutor()._max_workers


def test_a_worker_may_have_its_share_of_the_cpus(way):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        assert pool.submit(_with_eight_cpus, 1).result() == [4, 4]
        assert pool.submit(_with_eight_cpus, 2).result() == [4, 4, 1], "a worker of the worker's 4: 8 / (2 * 4)"


def test_a_worker_does_not_take_over_what_its_host_had(way):
    get_shared_executor(7).submit(abs, 1).result()
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        assert pool.submit(nested_kind).result() == ("SharedSerialExecutor", _cpus(), True, True)
        assert pool.submit(_with_eight_cpus, 1).result() == [4, 4]
    assert get_shared_executor()._max_workers == 7


def test_a_share_may_be_smaller_than_what_the_pool_of_the_host_is_to_keep():
    with PidfdPoolExecutor(_cpus() + 1) as pool:
        assert pool.submit(_least_of_share).result() == (1, 1)
        with pytest.raises(TypeError, match="min_workers must be"):
            pool.submit(_least_of_share, "two").result()


def _least_of_share(least: object = 2) -> tuple[int, int]:
    executor = get_shared_executor(4, min_workers=least, nested="share")
    assert get_shared_executor(4, min_workers=least, nested="share") is executor
    return executor._max_workers, executor._policy.min_workers


def _with_eight_cpus(levels: int) -> list[int]:
    from pidfdpool.process import cpus

    cpus.usable = lambda: 8
    pool = get_shared_executor(nested="share")
    found = [pool._max_workers, get_shared_executor(100, nested="share")._max_workers]
    if levels > 1:
        found.append(pool.submit(_with_eight_cpus, 1).result()[0])
    return found


def test_in_place_options_are_checked_and_kept_as_with_a_pool(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        assert pool.submit(_in_place).result() == "ok"


def _in_place() -> str:
    log: list = []
    first = get_shared_executor(2, initializer=log.append, initargs=(1,))
    assert isinstance(first, SerialExecutor)
    assert get_shared_executor(3, initializer=log.append, initargs=(1,)) is first
    assert first._max_workers == 3
    first.submit(abs, 1)
    first.submit(abs, 1)
    assert log == [1]
    with pytest.raises(ValueError, match="max_age"):
        get_shared_executor(max_age=3)
    view = get_shared_executor(retries=1, retry_on=TypeError, retry_backoff=0)
    assert view.submit(calls.double, None).attempt == 2
    with first:
        pass
    assert get_shared_executor() is first
    first.shutdown()
    assert get_shared_executor() is not first
    return "ok"


def test_what_a_task_forks_counts_as_a_worker(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        assert pool.submit(_kind_in_a_child).result() == "SharedSerialExecutor"


def _kind_in_a_child() -> str:
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writer, type(get_shared_executor()).__name__.encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with open(reader, "rb") as file:
        return file.read().decode()


def test_a_signal_handler_may_ask_while_the_pool_is_made(monkeypatch):
    found: list = []
    make = shared.SharedExecutor.__init__

    def interrupted(self, *arguments, **options):
        if not found:
            found.append(None)
            found[0] = get_shared_executor()
        make(self, *arguments, **options)

    monkeypatch.setattr(shared.SharedExecutor, "__init__", interrupted)
    get_shared_executor()
    assert found[0] is not None
    found[0].shutdown()
