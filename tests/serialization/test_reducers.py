"""Objects for which multiprocessing has reducers: they work in workers, and cost one duplicate each."""

from __future__ import annotations

import gc
import multiprocessing
import os
import socket
import threading
from multiprocessing import shared_memory

import pytest

from pidfdpool import CallNotSendable, PidfdPoolExecutor
from tests.conditions import ROOT, eventually, run_python

CONTEXTS = {"spawn": multiprocessing.get_context("spawn"), "fork": multiprocessing.get_context("fork")}


def identity(end) -> tuple[int, int]:
    """Return the identity of what a descriptor refers to, the same in every process."""
    status = os.fstat(end.fileno())
    return status.st_dev, status.st_ino


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def make_pipe():
    return multiprocessing.Pipe()


def make_local_class(end):
    class Holder:
        def __init__(self, end):
            self.end = end

    return Holder(end)


CALLS = {
    "a function": identity,
    "a lambda": lambda end: identity(end),
    "a closure": (lambda function: lambda end: function(end))(identity),
}


@pytest.fixture
def ends():
    """Give one end of each kind; close them afterwards."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    both, other = multiprocessing.Pipe()
    one, two = socket.socketpair()
    listener = socket.create_server(("127.0.0.1", 0))
    opened = {"reader": reader, "writer": writer, "both": both, "socket": one, "listener": listener}
    yield opened
    for end in (*opened.values(), other, two):
        end.close()


@pytest.fixture
def tracker():
    """End multiprocessing's resource tracker after the test."""
    from multiprocessing import resource_tracker

    yield
    gc.collect()  # a semaphore that is gone tells the tracker so
    resource_tracker._resource_tracker._stop()


@pytest.fixture
def sharer():
    """End multiprocessing's own thread, which hands over descriptors, after the test."""
    from multiprocessing import resource_sharer

    yield
    resource_sharer.stop()


@pytest.mark.usefixtures("sharer")
@pytest.mark.parametrize("call", CALLS)
def test_connections_and_sockets_work_in_the_worker(way, ends, call):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        for end in ends.values():
            assert pool.submit(CALLS[call], end).result(timeout=20) == identity(end)
            assert pool.submit(lambda holder: identity(holder["end"]), {"end": end}).result(timeout=20) == identity(
                end
            )
        local = make_local_class(ends["both"])
        assert pool.submit(lambda holder: identity(holder.end), local).result(timeout=20) == identity(ends["both"])
        got = list(pool.map(CALLS[call], ends.values(), chunksize=2))
        assert got == [identity(end) for end in ends.values()]


@pytest.mark.usefixtures("sharer")
def test_connections_in_a_closure_work_in_the_worker(way, ends):
    def held_by(end):
        return lambda: identity(end)

    with PidfdPoolExecutor(1, mp_context=way) as pool:
        for end in ends.values():
            assert pool.submit(held_by(end)).result(timeout=20) == identity(end)


@pytest.mark.usefixtures("sharer")
def test_large_calls_may_contain_connections(way, ends):
    large = b"x" * 1_000_000
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        for _ in range(3):  # from the second call on they are pickled out of band
            for function in CALLS.values():
                call = lambda end, _, function=function: function(end)  # noqa: E731
                assert pool.submit(call, ends["socket"], large).result(timeout=20) == identity(ends["socket"])
                done = pool.submit(use_large, ends["socket"], large).result(timeout=20)
                assert done == (identity(ends["socket"]), len(large))


def use_large(end, data):
    return identity(end), len(data)


@pytest.mark.usefixtures("sharer")
@pytest.mark.parametrize("make", [make_pipe, lambda: make_pipe()], ids=["function", "lambda"])
def test_results_may_contain_pipe_ends(way, make):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        ours, theirs = pool.submit(make).result(timeout=20)
        with ours, theirs:
            ours.send("said")
            assert theirs.recv() == "said"


@pytest.mark.many_times
@pytest.mark.usefixtures("sharer")
def test_a_thousand_calls_leak_no_descriptor(way, ends):
    """Guards against calls that are pickled twice, of which only one duplicate is fetched."""
    given = list(ends.values())
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        for function in CALLS.values():
            pool.submit(function, given[0]).result(timeout=20)
        before = descriptors()
        functions = list(CALLS.values())
        calls = [(functions[number % 3], given[number % len(given)]) for number in range(1000)]
        for function, end in calls:
            assert pool.submit(function, end).result(timeout=20) == identity(end)
        eventually(lambda: descriptors() <= before, "no descriptor is left")


@pytest.mark.usefixtures("sharer")
def test_a_preload_may_contain_a_pipe_end(way):
    def greet_by(end):
        return lambda: end.send("greeting")

    reader, writer = multiprocessing.Pipe(duplex=False)
    with reader, writer, PidfdPoolExecutor(1, mp_context=way, preload=greet_by(writer)) as pool:
        assert pool.submit(abs, -1).result(timeout=20) == 1
        assert reader.poll(20)
        assert reader.recv() == "greeting"


class Fails:
    def __reduce__(self):
        raise ZeroDivisionError


@pytest.mark.usefixtures("sharer")
def test_unpicklable_calls_leak_no_descriptor(way, ends):
    end = ends["socket"]
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.submit(identity, end).result(timeout=20)
        before = descriptors()
        for function in CALLS.values():
            for _ in range(10):
                with pytest.raises(ZeroDivisionError):
                    pool.submit(function, [end, Fails()]).result(timeout=20)
        assert pool.submit(identity, end).result(timeout=20) == identity(end)
        eventually(lambda: descriptors() <= before, "no descriptor is left")


@pytest.mark.usefixtures("tracker")
@pytest.mark.parametrize("function", [len, lambda value: value], ids=["function", "lambda"])
@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue", "Lock", "Event", "Semaphore", "Condition"])
def test_objects_that_must_be_inherited_are_refused_by_name_and_with_the_standard_message(way, kind, function):
    made = getattr(CONTEXTS[way], kind)()
    with pytest.raises(RuntimeError) as expected:
        multiprocessing.reduction.ForkingPickler.dumps(made)
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        error = pool.submit(function, made).exception(timeout=20)
    assert isinstance(error, CallNotSendable)
    assert isinstance(error, RuntimeError)
    assert str(error).startswith("argument 1 of ")
    assert str(expected.value) in str(error)
    if kind == "Queue":
        made.close()
        made.join_thread()


@pytest.mark.usefixtures("tracker")
def test_proxies_of_a_manager_work(way):
    with CONTEXTS["spawn"].Manager() as manager, PidfdPoolExecutor(1, mp_context=way) as pool:
        queue, values = manager.Queue(), manager.dict()
        pool.submit(queue.put, 1).result(timeout=20)
        pool.submit(lambda queue, values: (queue.put(2), values.update(x=3)), queue, values).result(timeout=20)
        assert [queue.get(timeout=20), queue.get(timeout=20), dict(values)] == [1, 2, {"x": 3}]


@pytest.mark.usefixtures("tracker")
def test_shared_memory_is_shared(way):
    memory = shared_memory.SharedMemory(create=True, size=10)
    try:
        with PidfdPoolExecutor(1, mp_context=way) as pool:

            def write(memory):
                memory.buf[0] = 7
                memory.close()

            pool.submit(write, memory).result(timeout=20)
        assert memory.buf[0] == 7
    finally:
        memory.close()
        memory.unlink()


def fill(box, value):
    global given
    given = box, value


def told():
    given[0].put(given[1])


@pytest.mark.usefixtures("tracker")
@pytest.mark.parametrize("fill", [fill, lambda *arguments: fill(*arguments)], ids=["function", "lambda"])
def test_a_queue_in_initargs_loses_no_record(way, fill):
    queue = CONTEXTS[way].Queue()
    before = descriptors()
    with PidfdPoolExecutor(2, mp_context=way, initializer=fill, initargs=(queue, "record")) as pool:
        futures = [pool.submit(told) for _ in range(200)]
        assert [queue.get(timeout=20) for _ in futures] == ["record"] * 200
    eventually(lambda: descriptors() <= before, "no descriptor is left")
    queue.close()
    queue.join_thread()


SCRIPT = """
import multiprocessing, os, socket, sys, time
from pidfdpool import PidfdPoolExecutor

def identity(end):
    status = os.fstat(end.fileno())
    return status.st_dev, status.st_ino

def start(queue, end, numbers):
    global box, given, shared
    box, given, shared = queue, end, numbers

def double():
    shared[:] = [2 * number for number in shared]

def report(number):
    box.put((number, identity(given)))

def make():
    return multiprocessing.Pipe()

def main():
    context = multiprocessing.get_context(sys.argv[1])
    one, two = socket.socketpair()
    reader, writer = multiprocessing.Pipe(False)
    queue = context.Queue()
    numbers = context.Array("i", [1, 2, 3])
    initargs = queue, one, numbers
    with PidfdPoolExecutor(1, mp_context=sys.argv[1], initializer=start, initargs=initargs) as pool:
        pool.submit(double).result()
        assert numbers[:] == [2, 4, 6]
        for end in (one, reader, writer):
            assert pool.submit(identity, end).result() == identity(end)
            assert pool.submit(lambda end: identity(end), end).result() == identity(end)
        before = len(os.listdir("/proc/self/fd"))
        for number in range(300):
            pool.submit(report, number)
            pool.submit(identity, one).result()
        told = [queue.get(timeout=20) for _ in range(300)]
        assert sorted(number for number, _ in told) == list(range(300))
        assert {seen for _, seen in told} == {identity(one)}
        # The thread that hands descriptors over closes a connection a moment after the answer.
        until = time.monotonic() + 20
        while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < until:
            time.sleep(0.01)
        assert len(os.listdir("/proc/self/fd")) <= before
        ours, theirs = pool.submit(make).result()
        ours.send("said")
        print(theirs.recv())

if __name__ == "__main__":
    main()
"""


def test_a_script_shares_connections(way, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = run_python(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')", way)
    assert (done.stdout, done.stderr) == ("said\n", "")


def test_a_global_that_shares_a_resource_is_refused():
    done = run_python(
        """
import socket
from pidfdpool import PidfdPoolExecutor
one, two = socket.socketpair()
with PidfdPoolExecutor(1) as pool:
    print(pool.submit(lambda: one.fileno()).exception(timeout=20))
""",
        cwd=ROOT,
    )
    assert "the script's global 'one' (socket.socket)" in done.stdout, done.stderr
    assert "cannot pickle 'socket' object" in done.stdout


@pytest.mark.usefixtures("sharer")
def test_concurrent_submits_share_each_object_once(way, ends):
    given = list(ends.values())
    failed = []
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.submit(identity, given[0]).result(timeout=20)
        before = descriptors()

        def submit():
            for number in range(10):
                end = given[number % len(given)]
                got = {pool.submit(function, end).result(timeout=60) for function in CALLS.values()}
                failed.extend(got - {identity(end)})

        threads = [threading.Thread(target=submit) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        eventually(lambda: descriptors() <= before, "no descriptor is left")
