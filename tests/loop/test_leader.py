"""A thread that waits for a result reads the workers' channels itself. Nobody is to notice, whatever else happens."""

from __future__ import annotations

import os
import select
import signal
import threading
import time

import pytest

from pidfdpool import PidfdPoolExecutor, WorkerCrashed
from pidfdpool.loop import leader as leading_module
from pidfdpool.loop.outbox import Outbox
from tests import calling_back, calls
from tests.conditions import eventually, run_python


def leads(pool) -> bool:
    return bool(pool._pool.core.poller.leader)


class Waiting:
    """A thread that waits for a future, as the leader."""

    def __init__(self, pool, future, timeout=None):
        self.outcome = None

        def starts_to_lead():
            # While the pool thread is at the channels nobody leads, and who has begun to wait goes on in another way.
            self.thread = threading.Thread(target=self._wait, args=(future, timeout), daemon=True)
            self.thread.start()
            until = time.monotonic() + 0.5
            while not leads(pool) and self.thread.is_alive() and time.monotonic() < until:
                time.sleep(0.001)
            return leads(pool)

        eventually(starts_to_lead, "it leads")

    def _wait(self, future, timeout):
        try:
            self.outcome = future.result(timeout)
        except BaseException as error:
            self.outcome = type(error).__name__

    def end(self):
        self.thread.join(20)
        assert not self.thread.is_alive()
        return self.outcome


def test_the_waiting_thread_gets_its_result_and_resolves_the_others(pool, held):
    waiting = Waiting(pool, held)
    assert [pool.submit(calls.double, number).result(20) for number in range(100)] == list(range(0, 200, 2))
    assert leads(pool)
    held.release.touch()
    assert waiting.end() == "value"
    eventually(lambda: not leads(pool), "the channels are the pool thread's again")
    assert pool.submit(calls.double, 1).result() == 2


def test_callbacks_are_not_made_by_the_leader_and_before_later_results_are_told(pool, held):
    waiting = Waiting(pool, held)
    threads, called = set(), []
    for number in range(30):
        future = pool.submit(calls.double, number)

        def call(_, number=number):
            threads.add(threading.current_thread())
            called.append(number)

        future.add_done_callback(call)
        assert future.result(20) == 2 * number
        assert called[: number - 1] == list(range(number - 1)), "those of the results before"
    eventually(lambda: called == list(range(30)), "all are made, in order")
    assert waiting.thread not in threads
    held.release.touch()
    assert waiting.end() == "value"


def test_no_leader_tells_a_later_result_while_the_callback_for_an_earlier_one_is_made(pool, held):
    """The order in which results are told is that in which they came, whoever tells them."""
    told, release = [], threading.Event()
    before = pool.stats().finished

    def call(_):
        told.append("callback begins")
        release.wait(20)
        told.append("callback ends")

    path = str(held.release)
    earlier, later = (pool.submit(calls.wait_for, f"{path}.{name}") for name in ("earlier", "later"))
    earlier.add_done_callback(call)
    waiting = Waiting(pool, held)
    held.release.with_name("held.release.earlier").touch()
    eventually(lambda: told and not leads(pool), "the pool thread makes the callback, and nobody leads")
    other = Waiting(pool, pool.submit(calls.wait_for, f"{path}.last"))
    held.release.with_name("held.release.later").touch()
    eventually(lambda: pool.stats().finished == before + 2, "the later result has come")
    time.sleep(0.05)  # in which it would be told, if nothing held it up
    assert not later.done()
    release.set()
    held.release.with_name("held.release.last").touch()
    held.release.touch()
    waiting.end()
    other.end()
    assert told == ["callback begins", "callback ends"]
    assert later.result(20) is None


in_host: list = []  # what is called when such a result is rebuilt


class Calls:
    """A result that calls something of the host's when it is rebuilt there."""

    def __reduce__(self):
        return _call_in_host, ()


def _call_in_host():
    in_host.pop()()


def test_what_is_cancelled_amid_the_leaders_work_is_cancelled_at_once(pool, held, tmp_path):
    """Also if the pool thread is to tell of it, because there are callbacks."""
    seen, called = [], []
    timed = pool.options(timeout=60)  # such tasks wait in the host until a worker is free
    other = timed.submit(calls.wait_for, str(tmp_path / "other"))
    timed.submit(Calls)
    timed.submit(calls.wait_for, str(held.release))
    cancelled = timed.submit(calls.double, 1)
    waiting = Waiting(pool, held)
    cancelled.add_done_callback(called.append)

    def cancel_all():
        pool.shutdown(wait=False, cancel_futures=True)
        seen.extend((cancelled.cancelled(), cancelled.done()))

    in_host.append(cancel_all)
    (tmp_path / "other").touch()
    assert other.result(20) is None
    eventually(lambda: called, "the callback is made")
    held.release.touch()
    assert waiting.end() == "value"
    assert seen == [True, True]


def test_a_timeout_is_kept(pool, held):
    waiting = Waiting(pool, held, timeout=0.2)
    assert waiting.end() == "TimeoutError"
    eventually(lambda: not leads(pool), "it does not lead any more")
    with pytest.raises(TimeoutError):
        held.exception(timeout=0.05)
    assert not held.done()


def test_a_timeout_is_kept_though_the_pool_thread_is_in_a_callback(pool, held):
    entered, leave = threading.Event(), threading.Event()
    calling_back.submit(pool, lambda _: (entered.set(), leave.wait(20)))
    assert entered.wait(20)
    try:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            held.result(timeout=0.1)
        assert time.monotonic() - began < 15
    finally:
        leave.set()


def test_the_death_of_the_worker_ends_the_wait(pool, held):
    waiting = Waiting(pool, held)
    os.kill(held.worker.pid, signal.SIGKILL)
    assert waiting.end() == WorkerCrashed.__name__
    assert pool.submit(calls.double, 1).result() == 2


def test_a_deadline_that_passes_ends_the_wait(tmp_path):
    """No worker says anything then: it is the pool thread that tells the leader's own future."""
    with PidfdPoolExecutor(1) as pool:
        holding = pool.submit(calls.run_until, str(tmp_path / "runs"), str(tmp_path / "release"))
        eventually((tmp_path / "runs").exists, "it runs")
        waiting = Waiting(pool, pool.options(deadline=2.0).submit(calls.double, 1))
        assert waiting.end() == "DeadlineExceeded"
        assert not holding.done()
        (tmp_path / "release").touch()


@pytest.mark.parametrize("how", ["kill", "by hand", "kill_workers", "template"])
def test_whoever_resolves_the_future_ends_the_wait(pool, held, how):
    waiting = Waiting(pool, held)
    if how == "kill":
        held.kill()
    elif how == "by hand":
        held.set_result("by hand")
    elif how == "kill_workers":
        pool.kill_workers()
    else:
        os.kill(pool._pool.core.template.end.pid, signal.SIGKILL)
    told = {"kill": "TaskKilled", "by hand": "by hand", "kill_workers": "WorkerCrashed"}
    assert waiting.end() in (told.get(how, "WorkerCrashed"), "PoolBroken")


def test_a_waiting_task_that_is_cancelled_ends_the_wait(way, tmp_path):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        path = str(tmp_path / "held")
        pool.submit(calls.run_until, path, f"{path}.release")
        eventually(lambda: os.path.exists(path), "it runs, and the pool thread has nothing to serve any more")
        queued = pool.submit(calls.double, 1)
        waiting = Waiting(pool, queued)
        assert queued.cancel()
        assert waiting.end() == "CancelledError"
        (tmp_path / "held.release").touch()


def test_a_pool_thread_that_is_late_does_not_take_a_wake_up_from_the_leader(pool):
    """It was about to look at the channels when another thread took them over, for a task that is cancelled then."""
    pool.submit(calls.double, 1).result()
    poller = pool._pool.core.poller
    poller.leader[None] = 0  # no thread's number
    try:
        poller.lead()
        poller.wake_leader()
        poller._serve_inner(select.EPOLLIN)
        assert poller.wait_for_answers(0), "the wake-up is there yet"
    finally:
        del poller.leader[None]
        poller.follow()
    eventually(lambda: not poller.wait_for_answers(0), "with no leader left, it is the pool thread's to drain")


def test_a_pool_that_shuts_down_waits_for_what_is_waited_for(pool, held):
    waiting = Waiting(pool, held)
    pool.shutdown(wait=False)
    held.release.touch()
    assert waiting.end() == "value"


def test_many_threads_wait_for_many_results(pool):
    wrong = []

    def work(start):
        numbers = range(start, start + 150)
        wrong.extend(number for number in numbers if pool.submit(calls.double, number).result(30) != 2 * number)

    threads = [threading.Thread(target=work, args=(1000 * index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


BEGIN = """
    import os, signal, sys, time
    from pidfdpool import PidfdPoolExecutor
    from tests import calls
    pool = PidfdPoolExecutor(2, mp_context=sys.argv[1])
    pool.submit(calls.double, 1).result()
"""


HANDLING = """
    import threading
    from concurrent.futures import as_completed, wait
    path = os.path.join(sys.argv[2], "held")

    def by_callback():
        called = threading.Event()
        pool.submit(calls.double, 21).add_done_callback(lambda _: called.set())
        return called.wait(20) and 42

    def by_a_thread():
        got = []
        thread = threading.Thread(target=lambda: got.append(pool.submit(calls.double, 21).result(20)))
        thread.start()
        thread.join(20)
        return got[0]

    waits = {
        "result": lambda: pool.submit(calls.double, 21).result(20),
        "wait": lambda: wait([pool.submit(calls.double, 21)], 20).done.pop().result(0),
        "as_completed": lambda: next(as_completed([pool.submit(calls.double, 21)], 20)).result(0),
        "callback": by_callback,
        "map": lambda: next(pool.map(calls.double, [21], timeout=20)),
        "map_unordered": lambda: next(pool.map_unordered(calls.double, [21], timeout=20, chunksize=1)),
        "thread": by_a_thread,
    }
    got = []

    def handle(*_):
        try:
            got.append(call())
        except BaseException as error:
            got.append(repr(error))
        open(f"{path}.release", "w").close()

    signal.signal(signal.SIGALRM, handle)
    for name, call in waits.items():
        slow = pool.submit(calls.run_until, path, f"{path}.release", "value")
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert slow.result(20) == "value"
        os.unlink(f"{path}.release")
        print(name, got.pop())
    pool.shutdown()
"""
WAITED = "".join(
    f"{name} 42\n" for name in ("result", "wait", "as_completed", "callback", "map", "map_unordered", "thread")
)


def test_a_signal_handler_may_wait_for_another_result_meanwhile_in_any_way(way, tmp_path):
    done = run_python(BEGIN + HANDLING, way, str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, WAITED, "")


def test_what_interrupts_the_leader_may_wait_and_the_leader_is_woken_again(tmp_path):
    """A handler that was unknown when it began to lead; so may a debugger do that is let in.

    Until its own result is there it reads that of the wait which it has interrupted, too. What was to end that wait
    is used up then; and Python goes on with it as if nothing had come.
    """
    code = """
    from pidfdpool.process import interruptible
    interruptible.handlers_are_called = lambda: False
    interruptible.FIRST_WAITS = ()  # the main thread looks again by itself only for a while
    path = os.path.join(sys.argv[2], "held")
    def handle(*_):
        open(f"{path}.release", "w").close()
        assert pool.submit(calls.sleep, 0.2, 42).result(20) == 42
    signal.signal(signal.SIGALRM, handle)
    for _ in range(3):
        slow = pool.submit(calls.run_until, path, f"{path}.release", "value")
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        print(slow.result(20))
        os.unlink(f"{path}.release")
    pool.shutdown()
    """
    done = run_python(BEGIN + code, "fork", str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "value\n" * 3, "")


def test_what_is_left_to_two_threads_at_once_is_run_by_one_of_them(pool):
    """At the pool's end a thread that leaves something runs it itself, while the pool's thread may be at it, too."""
    pool.submit(calls.double, 1).result()
    outbox, ran = Outbox(pool._pool.core), []

    def first():
        ran.append("first")
        assert outbox.left.popleft() is first  # by the other thread, which runs it as well

    outbox.left.extend([first, lambda: ran.append("second"), lambda: ran.append("third")])
    outbox.run_left()
    assert ran == ["first", "second", "third"]


def test_a_leader_that_has_not_had_its_turn_when_the_pool_ends_is_not_forgotten(pool, held, monkeypatch):
    inner = pool._pool
    waiting = Waiting(pool, held)
    ring = inner.core.poller.wake_leader
    monkeypatch.setattr(leading_module, "LEAVING", 0.0)
    monkeypatch.setattr(inner.core.poller, "wake_leader", lambda: None)  # as if it was not run meanwhile
    pool.kill_workers()
    eventually(lambda: not inner.core.thread._thread.is_alive(), "the pool's thread ends")
    ring()
    assert waiting.end() == "WorkerCrashed"
    eventually(lambda: inner.core.poller._wake_fd < 0, "the leader has closed what was left to it")


def test_the_main_thread_leads_where_no_handler_could_keep_it_from_that():
    code = """
    import threading

    def leads(seconds):
        seen = []
        def look():
            end = time.monotonic() + seconds
            while not seen and time.monotonic() < end:
                seen.extend(pool._pool.core.poller.leader.values())
                time.sleep(0.001)
        looking = threading.Thread(target=look)
        looking.start()
        while looking.is_alive():
            try:
                held.result(0.05)  # not the first time, perhaps: the pool's thread may be serving something
            except TimeoutError:
                pass
        return bool(seen)

    held = pool.submit(calls.sleep, 60)
    assert leads(20)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    assert leads(20)
    signal.signal(signal.SIGUSR1, print)
    assert leads(20), "a function of C's returns at once"
    signal.signal(signal.SIGRTMIN + 3, lambda *_: None)
    assert not leads(0.1)
    pool.kill_workers()
    print("so it is")
    """
    done = run_python(BEGIN + code, "fork")
    assert (done.returncode, done.stdout, done.stderr) == (0, "so it is\n", "")


RAISING = """
    import threading
    path = os.path.join(sys.argv[2], "held")

    class Enough(Exception):
        pass
    def handle(*_):
        raise Enough

    def check(round, interrupt, error):
        slow = pool.submit(calls.run_until, path, f"{path}.{round}", "value")
        try:
            interrupt()
            slow.result(20)
        except error:
            pass
        else:
            print("it was not interrupted")
        assert pool.submit(calls.double, 1).result(20) == 2
        open(f"{path}.{round}", "w").close()
        assert slow.result(20) == "value"

    def interrupt_the_leader():
        end = time.monotonic() + 0.5
        while not pool._pool.core.poller.leader and time.monotonic() < end:
            time.sleep(0.001)  # it may not lead, if the pool's thread is serving something just then
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    signal.signal(signal.SIGALRM, handle)
    for round in range(10):
        check(round, lambda: signal.setitimer(signal.ITIMER_REAL, 0.01), Enough)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for round in range(10, 20):
        check(round, threading.Thread(target=interrupt_the_leader).start, KeyboardInterrupt)
    pool.shutdown()
    print("gone on")
"""


def test_a_signal_handler_that_raises_ends_the_wait_and_the_pool_goes_on(way, tmp_path):
    done = run_python(BEGIN + RAISING, way, str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "gone on\n", "")
