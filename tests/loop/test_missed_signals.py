"""A signal that comes just before the main thread sleeps is handled, wherever that thread waits for the pool.

Its flag is set when Python has looked at it, and nothing interrupts the sleep. The same is to be seen when another
thread takes the signal while the main thread is asleep already; and that can be done on purpose.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue

import pytest

from pidfdpool.process import interruptible
from tests.conditions import eventually, run_python

HOST = """
import os, signal, sys, threading, time
from concurrent.futures import as_completed, wait
from pidfdpool import PidfdPoolExecutor
from tests.conditions import eventually

main = threading.get_native_id()

def sleeps():
    with open(f"/proc/self/task/{main}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "S"

def take_a_signal(waits, over):
    waits.wait()
    eventually(lambda: all(sleeps() for _ in range(5)), "the main thread sleeps")
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
    if not over.wait(10):
        os.write(1, b"it was missed")
        os._exit(1)

def check(name, call):
    waits, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=take_a_signal, args=(waits, over))
    thread.start()
    try:
        waits.set()
        call()
    except KeyboardInterrupt:
        os.write(1, f"{name}\\n".encode())
    over.set()
    thread.join()

def handle_sigint(*_):
    raise KeyboardInterrupt

def begin(**options):
    return PidfdPoolExecutor(1, mp_context="fork", **options)

pool = begin(max_pending=3)
held = [pool.submit(time.sleep, 60) for _ in range(2)]
check("result", lambda: held[0].result())
check("exception", lambda: held[1].exception(timeout=50))
signal.signal(signal.SIGINT, handle_sigint)
check("result, with a handler of the host's", lambda: held[0].result())
check("exception, with a handler of the host's", lambda: held[1].exception())
signal.signal(signal.SIGINT, signal.default_int_handler)
check("as_completed", lambda: next(as_completed(held)))
check("wait", lambda: wait(held))
check("map", lambda: next(pool.map(time.sleep, [60], chunksize=1)))
check("map_unordered", lambda: next(pool.map_unordered(time.sleep, [60], chunksize=1)))
check("room", lambda: [pool.submit(time.sleep, 60) for _ in range(2)])
check("shutdown", pool.shutdown)
check("map in chunks", lambda: next(begin().map(time.sleep, [60])))
check("map_unordered in chunks", lambda: next(begin().map_unordered(time.sleep, [60])))
check("prestart", begin(initializer=time.sleep, initargs=(60,)).prestart)
left = begin()
left.submit(time.sleep, 60)
check("leaving with", lambda: left.__exit__(None, None, None))
os.kill(0, signal.SIGKILL)
"""

CHECKED = """result
exception
result, with a handler of the host's
exception, with a handler of the host's
as_completed
wait
map
map_unordered
room
shutdown
map in chunks
map_unordered in chunks
prestart
leaving with
"""


def test_a_signal_that_another_thread_takes_ends_every_wait():
    assert run_python(HOST, start_new_session=True).stdout == CHECKED


def in_another_thread(call):
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(call).result()


def test_the_main_thread_looks_again_a_few_times_and_then_sleeps():
    steps = interruptible.WaitSteps(None)
    assert [steps.next() for _ in range(6)] == [*interruptible.FIRST_WAITS, None, None]
    assert sum(interruptible.FIRST_WAITS) < 2, "it is soon asleep for good"


def test_a_thread_that_runs_no_handlers_sleeps_at_once():
    assert in_another_thread(lambda: interruptible.WaitSteps(None).next()) is None
    assert in_another_thread(lambda: interruptible.WaitSteps(20).next()) > 15


def test_no_step_goes_beyond_the_timeout():
    steps = interruptible.WaitSteps(0.03)
    assert steps.next() == 0.01
    assert steps.next() <= 0.03
    time.sleep(0.03)
    assert steps.next() <= 0


def test_what_comes_at_a_step_s_end_is_seen():
    """A wait may end just when somebody notifies it; what it waits for is looked at again."""
    condition, looked = threading.Condition(), []

    def done():
        looked.append(len(condition._waiters))
        return len(looked) == 3

    assert interruptible.wait(done, condition)
    assert looked == [1, 1, 1]
    assert not condition._waiters


def test_who_is_notified_for_nothing_goes_on_waiting():
    condition, is_done = threading.Condition(), []

    def notify():
        eventually(lambda: condition._waiters, "it waits")
        with condition:
            condition.notify_all()
        eventually(lambda: condition._waiters, "it waits again")
        is_done.append(True)
        with condition:
            condition.notify_all()

    with ThreadPoolExecutor(1) as threads:
        told = threads.submit(notify)
        assert in_another_thread(lambda: interruptible.wait(lambda: bool(is_done), condition, 20))
        told.result()
    assert not condition._waiters


@pytest.mark.parametrize("timeout", [0, -1, 0.02])
def test_waiting_ends_with_the_timeout(timeout):
    event, queue = interruptible.Event(), SimpleQueue()
    assert not event.wait(timeout)
    with pytest.raises(Empty):
        interruptible.get(queue, timeout)
    event.set()
    queue.put("item")
    assert event.wait(timeout)
    assert interruptible.get(queue, timeout) == "item"


def test_a_lock_is_waited_for_in_steps():
    lock = threading.Lock()
    lock.acquire()
    threading.Timer(0.1, lock.release).start()
    assert interruptible.acquire(lock)
    lock.release()
