"""Signal handlers and finalizers run in the middle of whatever their thread is doing, and may use the pool there."""

from __future__ import annotations

import concurrent.futures
import threading

import pytest

from pidfdpool import InheritedFutureError, PidfdPoolExecutor
from pidfdpool.executor.futures import Future
from tests import calling_back, calls
from tests.conditions import eventually, run_python

BEGIN = """
    import gc, signal, sys, threading, time
    from pidfdpool import PidfdPoolExecutor
    from tests import calls

    pool = PidfdPoolExecutor(2, mp_context=sys.argv[1])
"""


def run_host(code, way):
    done = run_python(BEGIN + code, way)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_signal_handler_may_submit_and_cancel(way):
    out = run_host(
        """
    handled = []
    def handle(*_):
        handled.append((len(handled), pool.submit(calls.double, len(handled))))
        handled[-3:][0][1].cancel()
    pool.submit(calls.double, 0).result()
    signal.signal(signal.SIGUSR1, handle)
    def interrupt():
        while len(handled) <= 20 or len(own) < 3000:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
            time.sleep(0.0007)
    own = []
    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    while interrupting.is_alive():
        own.append(pool.submit(calls.double, len(own)))
    assert [future.result(30) for future in own] == [2 * number for number in range(len(own))]
    for number, future in handled:
        assert future.cancelled() or future.result(30) == 2 * number
    pool.shutdown()
    print(len(handled) > 20)
    """,
        way,
    )
    assert out == "True\n"


def test_a_finalizer_may_submit(way):
    out = run_host(
        """
    made = []
    class Late:
        def __init__(self):
            self.cycle = self
        def __del__(self):
            made.append((len(made), pool.submit(calls.double, len(made))))
    pool.submit(calls.double, 0).result()
    gc.set_threshold(7)
    own = []
    for number in range(1000):
        Late()
        own.append(pool.submit(calls.double, number))
    gc.set_threshold(1000)
    while len(made) < 1000:  # one collection may pass over some, or be refused while the pool's thread collects
        gc.collect()
    assert [future.result(30) for future in own] == [2 * number for number in range(1000)]
    assert [future.result(30) for _, future in made] == [2 * number for number, _ in made]
    pool.shutdown()
    print(len(made))
    """,
        way,
    )
    assert out == "1000\n"


@pytest.mark.parametrize("wait", [True, False])
def test_a_signal_handler_may_shut_down(way, wait):
    out = run_host(
        f"""
    pool.submit(calls.double, 0).result()
    signal.signal(signal.SIGVTALRM, lambda *_: pool.shutdown(wait={wait}))
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.05)
    futures = []
    try:
        while True:
            futures.append(pool.submit(calls.double, len(futures)))
    except RuntimeError as error:
        print(error)
    assert [future.result(30) for future in futures] == [2 * number for number in range(len(futures))]
    """,
        way,
    )
    assert out == "cannot schedule new futures after shutdown\n"


def test_a_signal_handler_may_shut_down_while_the_pool_starts(way):
    out = run_host(
        """
    signal.signal(signal.SIGALRM, lambda *_: pool.shutdown())
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    try:
        assert pool.submit(calls.double, 2).result(30) == 4
        pool.submit(calls.double, 2)
        while True:
            pool.submit(calls.double, 2)
    except RuntimeError as error:
        print(error)
    """,
        way,
    )
    assert out == "cannot schedule new futures after shutdown\n"


def test_a_signal_handler_may_shut_down_while_a_map_hands_out_its_calls():
    """The handler's thread has the lock of that; it is interrupted while it pickles a chunk."""
    out = run_host(
        """
    class Interrupting:
        def __reduce__(self):
            signal.raise_signal(signal.SIGALRM)
            return int, (1,)

    def handle(*_):
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        pool.shutdown(wait=False)
        print("shut down")

    signal.signal(signal.SIGALRM, handle)
    try:
        list(pool.map(str, [Interrupting()] * 3))
    except RuntimeError as error:
        print(error)
    """,
        "fork",
    )
    assert out == "shut down\ncannot schedule new futures after shutdown\n"


def test_a_signal_handler_may_make_a_pool_while_its_thread_does():
    """And while the interpreter exits."""
    out = run_host(
        """
    from pidfdpool.executor import lifecycle
    with lifecycle._lock:  # as a handler finds it
        print(pool.submit(calls.double, 21).result())
        lifecycle._at_exit()
    """,
        "fork",
    )
    assert out == "42\n"


class Exiting:
    def __reduce__(self):
        raise SystemExit(7)


def refused(future):
    """Wait for a future that is not done where that would never end; return what is raised."""
    for wait in (future.result, future.exception):
        with pytest.raises(RuntimeError, match="would never end: the caller") as raised:
            wait()
    with pytest.raises(TimeoutError):
        future.result(timeout=0.01)
    return type(raised.value).__name__


def test_a_callback_that_waits_for_another_result_is_refused_and_stops_nobody(pool, held):
    found = []
    calling_back.submit(pool, lambda _: found.append(refused(held))).result()
    eventually(lambda: found, "it is called")
    held.release.touch()
    assert held.result(20) == "value"
    assert found == ["RuntimeError"]


class WaitsWhenRebuilt:
    """A result whose rebuilding in the host waits for another one."""

    awaited = None

    def __reduce__(self):
        return _wait_when_rebuilt, ()


def _wait_when_rebuilt():
    return refused(WaitsWhenRebuilt.awaited)


def test_a_result_that_waits_for_another_one_while_it_is_rebuilt_is_refused(pool, held, monkeypatch):
    """In the leader, the thread that waits: its own work is what it would wait for."""
    monkeypatch.setattr(WaitsWhenRebuilt, "awaited", held)
    assert pool.submit(WaitsWhenRebuilt).result(20) == "RuntimeError"
    held.release.touch()
    assert held.result(20) == "value"


def test_a_handler_that_has_interrupted_a_decision_does_not_wait_for_itself(pool, held):
    with pool._pool.core.lock:  # as a handler finds it that comes amid a decision of its own thread's
        assert refused(held) == "RuntimeError"
    held.release.touch()
    assert held.result(20) == "value"


def test_who_asks_to_exit_while_a_call_is_pickled_is_heard():
    with PidfdPoolExecutor(1) as pool, pytest.raises(SystemExit):
        pool.submit(calls.double, Exiting())


def test_shutdown_waits_for_a_start_in_another_thread(way):
    pool = PidfdPoolExecutor(1, mp_context=way)
    futures = []
    thread = threading.Thread(target=lambda: futures.append(pool.submit(calls.sleep, 0.1, "done")))
    thread.start()
    eventually(lambda: futures or (pool._pool is not None and pool._pool.core.tasks), "it has submitted")
    pool.shutdown(wait=True)
    thread.join()
    assert futures[0].result(timeout=0) == "done"


def test_a_cancelled_future_is_done_in_a_forked_child_too():
    future = Future()
    concurrent.futures.Future.cancel(future)  # and the pool was about to be told
    future._fail_in_forked_child(InheritedFutureError("it was pending"))
    assert future.cancelled()
    assert concurrent.futures.wait([future], timeout=0).done == {future}
