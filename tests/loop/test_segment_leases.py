"""Large payloads, in shared memory or not: they arrive as they were, and memory is given back."""

from __future__ import annotations

import gc
import os
import pickle
import random
import signal
import threading
from contextlib import suppress

import pytest

from pidfdpool import PidfdPoolExecutor, WorkerCrashed
from pidfdpool.pidfd import Pidfd
from pidfdpool.transport.segments import THRESHOLD, arena
from tests import calls, large
from tests.conditions import eventually, in_forked_child, run_python
from tests.pace import send_ahead

numpy = pytest.importorskip("numpy")

MB = 1 << 20
SIZES = [0, 1, THRESHOLD - 400, THRESHOLD - 1, THRESHOLD, THRESHOLD + 1, 100_000, MB, 5 * MB + 3]


def arena_of(pool) -> arena.Arena:
    return pool._pool.leases.arena


def warm(pool, value=b"x" * MB, times: int = 3) -> None:
    """Have the pool know that large things come."""
    for _ in range(times):
        pool.submit(large.echo, value).result()


def free(pool) -> int:
    """Return how many segments the next calls and results can have."""
    held = arena_of(pool)
    gc.collect()
    with held._lock:
        held._collect_released()
        return sum(map(len, held._free))


def segments_of_host() -> int:
    return sum("memfd:pidfdpool-segment" in name for name in map(_target, os.listdir("/proc/self/fd")))


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


@pytest.fixture
def idle_segments_stay(monkeypatch):
    """Have none freed because it is idle: on a busy machine a test may take longer than they are kept.

    Nor does the pool thread wake for that, so that nothing in the test can come of it.
    """
    monkeypatch.setattr(arena, "IDLE_TIME", 3600.0)


# ---- there and back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_bytes_arrive_as_they_were(pool, size):
    data = random.Random(size).randbytes(size)
    for _ in range(4):
        for value in (data, bytearray(data), [data, data[::-1], {"it": data}]):
            returned = pool.submit(large.echo, value).result()
            assert type(returned) is type(value)
            assert returned == value


@pytest.mark.parametrize("size", SIZES)
def test_arrays_arrive_as_they_were_and_can_be_written_to(pool, size):
    array = numpy.frombuffer(random.Random(size).randbytes(size), dtype=numpy.uint8).copy()
    for _ in range(4):
        returned = pool.submit(large.echo, array).result()
        assert (returned == array).all()
        assert returned.flags.writeable
        if size:
            returned[0] ^= 255
            assert returned[0] != array[0]


def test_arrays_of_all_kinds_arrive(pool):
    warm(pool)
    kinds = [
        numpy.arange(100_000, dtype="<f8").reshape(100, 1000),
        numpy.asfortranarray(numpy.arange(100_000.0).reshape(100, 1000)),
        numpy.arange(200_000, dtype=">i4")[::2],
        numpy.arange(100_000).astype("M8[s]"),
        numpy.zeros(100_000, dtype=[("a", "i4"), ("b", "f8")]),
        numpy.array([object, None, "x"] * 10, dtype=object),
    ]
    for array in [*kinds, tuple(kinds[:3])]:
        returned = pool.submit(large.echo, array).result()
        for one, other in zip(*((it if type(it) is tuple else (it,)) for it in (array, returned)), strict=True):
            assert pickle.loads(pickle.dumps(one, 5)).dtype == other.dtype
            assert one.shape == other.shape
            assert (one == other).all()


def test_read_only_arrays_stay_read_only(pool):
    warm(pool)
    array = numpy.arange(MB)
    array.flags.writeable = False
    assert not pool.submit(large.echo, array).result().flags.writeable


@pytest.mark.parametrize("size", [1000, 3 * MB])
def test_pickle_buffers_arrive_as_something_to_write_to(pool, size):
    for _ in range(4):
        buffer = pickle.PickleBuffer(bytearray(b"ab" * (size // 2)))
        kind, length, writable = pool.submit(large.describe, buffer).result()
        assert (length, writable) == (size, True)
        assert bytes(pool.submit(large.buffer_of, size).result()) == bytes(size)
    assert kind in ("memoryview", "bytearray")


def test_many_buffers_and_mixed_sizes_arrive(pool):
    warm(pool)
    value = [numpy.full(n, n, dtype=numpy.int32) for n in [10, 5000, 20_000] * 150]
    for _ in range(3):
        returned = pool.submit(large.echo, value).result()
        assert all((one == other).all() for one, other in zip(value, returned, strict=True))


def test_arrays_are_not_copied_on_their_way(pool):
    array = numpy.arange(MB)
    assert eventually(lambda: pool.submit(large.lies_in_a_segment, array).result(), "it lies in a segment")
    assert eventually(
        lambda: large.lies_in_a_segment(pool.submit(large.make_array, MB, 1.0).result()), "so does this"
    )
    buffer = pickle.PickleBuffer(bytearray(MB))
    assert pool.submit(large.lies_in_a_segment, buffer).result()


def test_tables_of_pyarrow_are_not_copied_on_their_way(pool):
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"numbers": numpy.arange(MB), "names": [str(n) for n in range(MB)]})
    for _ in range(3):
        returned = pool.submit(large.echo, table).result()
        assert returned.equals(table)
    buffers = [buffer for column in returned.columns for chunk in column.chunks for buffer in chunk.buffers()]
    assert all(large.is_of_a_segment(buffer.address) for buffer in buffers if buffer)


def test_objects_of_main_and_closures_carry_large_things_too(pool):
    array = numpy.arange(MB)
    for _ in range(3):
        assert pool.submit(lambda it: float((it + array).sum()), array).result() == 2 * array.sum()


def test_map_carries_large_items(pool):
    items = [bytes([n]) * 600_000 for n in range(12)]
    for _ in range(2):
        assert list(pool.map(large.echo, items)) == items
    arrays = [numpy.full(100_000, n) for n in range(12)]
    assert [int(array[0]) for array in pool.map(large.echo, arrays, chunksize=3)] == list(range(12))
    assert [int(array[0]) for array in pool.map(large.echo, arrays)] == list(range(12))
    assert all(pool.map(large.lies_in_a_segment, arrays))
    # Once there is a segment for each of the results that are on their way at a time.
    eventually(
        lambda: all(map(large.lies_in_a_segment, pool.map(large.echo, arrays[:4]))), "every result lies in a segment"
    )


def test_what_does_not_pickle_fails_as_ever(pool):
    warm(pool)
    with pytest.raises(Exception, match=r"pickle"):
        pool.submit(large.echo, (b"x" * MB, threading.Lock())).result()
    with pytest.raises(Exception, match=r"pickle"):
        pool.submit(large.echo, (numpy.zeros(MB), (n for n in ()))).result()
    assert pool.submit(large.echo, 1).result() == 1


# ---- whose is it -----------------------------------------------------------------------------------------------


def test_what_the_caller_does_after_submit_does_not_matter(pool):
    array, data = numpy.ones(MB), bytearray(b"a" * MB)
    for _ in range(3):
        totals = [pool.submit(large.total, array) for _ in range(4)]
        echoes = [pool.submit(large.echo, data) for _ in range(4)]
        array[:] = 7
        data[:] = b"b" * MB
        assert [future.result() for future in totals] == [MB] * 4
        assert all(future.result() == b"a" * MB for future in echoes)
        array[:] = 1
        data[:] = b"a" * MB


def test_nor_does_it_to_a_call_that_waits_and_is_too_small_for_a_segment(pool, tmp_path):
    """Guards against buffers that are left out of the pickle, and looked at only when the call is sent."""
    array = numpy.ones(2500)
    warm(pool)
    timed = pool.options(timeout=60)  # such tasks wait in the host until a worker is free
    for _ in range(2):
        timed.submit(large.wait_for, str(tmp_path / "release"))
    total = timed.submit(large.total, array)
    array[:] = 7
    (tmp_path / "release").touch()
    assert total.result() == 2500


def test_what_a_task_does_to_its_argument_reaches_nobody(pool):
    array = numpy.ones(MB)
    for _ in range(20):
        assert pool.submit(large.increment, array).result() == 2 * MB
    assert array.sum() == MB
    assert pool.submit(large.total, array).result() == MB


def test_what_a_task_keeps_stays_as_it_is(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        warm(pool)
        for number in range(3):
            pool.submit(large.keep, numpy.full(MB, float(number))).result()
        for _ in range(30):
            pool.submit(large.increment, numpy.full(MB, 9.0)).result()
        assert pool.submit(large.kept_totals).result() == [0.0, MB, 2.0 * MB]
        before = pool.submit(large.segments_seen).result()
        pool.submit(large.forget).result()
        assert pool.submit(large.segments_seen).result() <= before - 3, "and then its memory is gone"


def test_results_stay_as_they_are_whatever_comes_after(way):
    pool = PidfdPoolExecutor(2, mp_context=way)
    kept = [pool.submit(large.make_array, MB // 8, float(number)).result() for number in range(20)]
    for _ in range(20):
        pool.submit(large.make_array, MB // 8, 99.0).result()
    kept[3] += 1000
    pids = [info.pid for info in pool.workers()]
    for pid in pids:
        with Pidfd.open(pid) as worker:
            worker.send_signal(signal.SIGKILL)
    eventually(lambda: pool.stats().crashes == len(pids), "the deaths are noticed")
    kept += [pool.submit(large.make_array, MB // 8, float(number)).result() for number in range(20, 25)]
    pool.shutdown()
    assert segments_of_host() == 0
    assert large.segments_seen() > 0
    assert [array[-1] for array in kept] == [1003.0 if n == 3 else float(n) for n in range(25)]
    kept.clear()
    gc.collect()
    assert large.segments_seen() == 0


def test_another_attempt_sees_the_arguments_as_they_were(way):
    with PidfdPoolExecutor(2, mp_context=way, retries=2, retry_backoff=0.0) as pool:
        warm(pool, numpy.ones(MB))
        for _ in range(3):
            future = pool.submit(large.increment_and_die_at_first, numpy.ones(MB))
            assert future.result(timeout=20) == 2 * MB
            assert future.attempt == 2


def test_what_a_forked_child_of_a_task_sees_stays_as_it_is(way, tmp_path):
    path = str(tmp_path / "sum")
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        warm(pool, numpy.ones(MB))
        child = pool.submit(large.fork_and_keep_in_child, numpy.ones(MB), path).result()
        for number in range(20):
            pool.submit(large.increment, numpy.full(MB, float(number))).result()
        eventually(lambda: os.path.exists(path), "the child has looked")
        os.unlink(path)
        eventually(lambda: os.path.exists(path), "the child has looked again")
        with open(path) as file:
            assert float(file.read()) == MB
        os.kill(child, signal.SIGKILL)


def test_what_a_fork_of_the_host_sees_stays_as_it_is(pool):
    results = [pool.submit(large.make_array, MB, 5.0).result() for _ in range(4)]
    proceed, go = os.pipe()

    def child():
        os.close(go)
        os.read(proceed, 1)
        assert [float(array.sum()) for array in results] == [5.0 * MB] * 4
        results[0] += 1
        assert pool.submit(large.total, results[0]).result() == 6.0 * MB
        pool.shutdown()
        assert segments_of_host() == 0

    def in_parent():
        assert results[0].sum() == 5.0 * MB
        results.clear()
        for _ in range(20):
            pool.submit(large.make_array, MB, 9.0).result()
        os.close(go)

    thread = threading.Thread(target=lambda: reports.append(in_forked_child(child, fork)))
    reports = []
    forked = threading.Event()

    def fork():
        pid = os.fork()
        if pid:
            forked.set()
        return pid

    thread.start()
    assert forked.wait(20)
    in_parent()
    thread.join()
    os.close(proceed)
    assert reports == ["ok"]


# ---- it comes back ---------------------------------------------------------------------------------------------


def test_the_same_memory_is_used_again_and_again(pool):
    warm(pool, times=6)
    numbers = set(arena_of(pool).segments)
    for value in (b"x" * MB, b"y" * MB, numpy.zeros(MB // 8)):
        for _ in range(20):
            pool.submit(large.echo, value).result()
    assert len(arena_of(pool).segments.keys() | numbers) <= len(numbers) + 2


@pytest.mark.usefixtures("idle_segments_stay")
def test_cancelled_and_dropped_tasks_give_their_segments_back(pool, tmp_path):
    warm(pool)
    gate = [pool.submit(large.wait_for, str(tmp_path / "gate")) for _ in range(2)]
    waiting = [pool.submit(large.echo, b"x" * MB) for _ in range(20)]
    assert all(future.cancel() for future in waiting[10:])
    del waiting[:10]
    (tmp_path / "gate").touch()
    for future in gate:
        future.result()
    del gate, future
    eventually(lambda: free(pool) == len(arena_of(pool)), "all segments are free")
    before = set(arena_of(pool).segments)
    warm(pool)
    assert set(arena_of(pool).segments) <= before


@pytest.mark.usefixtures("idle_segments_stay")
def test_a_cancel_behind_a_task_that_borrowed_a_segment_costs_nobody_anything(tmp_path):
    """What tasks ahead were leased for their results comes back with those taken back, and with no others."""
    with PidfdPoolExecutor(1, prefetch=60.0) as pool:
        for _ in range(20):
            pool.submit(large.make, MB).result()  # quick tasks of this name have large results
        holding = pool.submit(calls.run_until, str(tmp_path / "runs"), str(tmp_path / "release"))
        eventually((tmp_path / "runs").exists, "it runs")
        first, second, last = (pool.submit(large.make, MB + n) for n in range(3))
        send_ahead(pool, 3)
        (link,) = pool._pool.core.workers.values()
        assert len(link.account.leased) >= 2, "tasks ahead have been leased something"
        assert last.cancel()
        (tmp_path / "release").touch()
        holding.result(20)
        assert [len(future.result(20)) for future in (first, second)] == [MB, MB + 1]
        assert pool.stats().deaths == 0


@pytest.mark.usefixtures("idle_segments_stay")
def test_a_call_that_is_taken_back_leaves_its_segment_to_the_next(tmp_path):
    with PidfdPoolExecutor(1, prefetch=60.0) as pool:
        warm(pool)
        before = set(arena_of(pool).segments)
        assert free(pool) == len(before)
        holding = pool.submit(calls.run_until, str(tmp_path / "runs"), str(tmp_path / "release"))
        eventually((tmp_path / "runs").exists, "it runs")
        ahead = pool.submit(large.echo, b"x" * MB)
        send_ahead(pool, 1)
        assert free(pool) == len(before) - 2, "it has one for its call, and one for its result"
        assert ahead.cancel()
        assert free(pool) == len(before), "at once, though its worker has not read yet that it is taken back"
        following = pool.submit(large.echo, b"y" * MB)
        assert free(pool) == len(before) - 1, "its call lies where the other one lay"
        (tmp_path / "release").touch()
        holding.result(20)
        assert following.result(20) == b"y" * MB
        warm(pool)
        assert free(pool) == len(before)
        assert set(arena_of(pool).segments) == before


def test_what_waits_for_long_lies_in_a_segment_by_the_time_it_is_sent(way, tmp_path):
    gate = str(tmp_path / "gate")
    with PidfdPoolExecutor(1, mp_context=way, segment_memory=3 * MB) as pool:
        arrays = [numpy.full(MB // 8, float(n)) for n in range(20)]
        for array in arrays[:2]:
            pool.submit(large.total, array).result()
        pool.submit(large.wait_for, gate)
        seen = [pool.submit(large.lies_in_a_segment, array) for array in arrays]
        totals = [pool.submit(large.total, array) for array in arrays]
        for array in arrays:
            array[:] = 0
        open(gate, "w").close()
        assert [future.result() for future in totals] == [n * MB / 8 for n in range(20)]
        assert [future.result() for future in seen] == [True] * 20


def test_the_bound_is_kept_and_everything_arrives(way):
    with PidfdPoolExecutor(2, mp_context=way, segment_memory=3 * MB) as pool:
        futures = [pool.submit(large.echo, bytes([n]) * MB) for n in range(30)]
        for n, future in enumerate(futures):
            assert arena_of(pool).used <= 3 * MB
            assert future.result() == bytes([n]) * MB
        assert pool.submit(large.echo, b"z" * 4 * MB).result() == b"z" * 4 * MB
        kept = [pool.submit(large.make_array, MB // 8, float(n)).result() for n in range(20)]
        assert arena_of(pool).used <= 3 * MB
        assert [array[0] for array in kept] == [float(n) for n in range(20)]


def test_none_are_used_where_none_are_wanted(way):
    with PidfdPoolExecutor(1, mp_context=way, segment_memory=0) as pool:
        warm(pool)
        array = numpy.arange(MB)
        assert (pool.submit(large.echo, array).result() == array).all()
        assert not pool.submit(large.lies_in_a_segment, array).result()
        assert len(arena_of(pool)) == 0
        assert pool.submit(large.segments_seen).result() == 0


def test_idle_memory_is_given_back_and_the_pool_sleeps_on(pool, monkeypatch):
    warm(pool)
    result = pool.submit(large.make_array, MB, 1.0).result()
    del result
    assert len(arena_of(pool)) > 0
    monkeypatch.setattr(arena, "IDLE_TIME", 0.2)
    pool._pool.core.wake_pool_thread()  # it sleeps for as long as they were kept before
    pool.submit(large.echo, 1).result()
    eventually(lambda: len(arena_of(pool)) == 0, "the host lets go of it")
    eventually(lambda: pool._pool.core.sleeps_until is None, "nothing is waited for")
    assert segments_of_host() == large.segments_seen() == 0
    for _ in range(2):
        assert pool.submit(large.segments_seen).result() == 0, "the workers let go of it, too"
    eventually(lambda: not arena_of(pool).to_unmap, "nobody is told of it again")
    warm(pool)


def test_a_result_that_is_dropped_while_the_pool_sleeps_is_given_back(pool, monkeypatch):
    monkeypatch.setattr(arena, "IDLE_TIME", 0.2)
    kept = [pool.submit(large.make_array, MB, 1.0).result() for _ in range(4)]
    eventually(lambda: pool._pool.core.sleeps_until is None, "nothing is waited for")
    assert len(arena_of(pool)) > 0
    kept.clear()
    gc.collect()
    eventually(lambda: len(arena_of(pool)) == 0, "the host lets go of it")


# ---- deaths and refusals ---------------------------------------------------------------------------------------


def test_every_future_resolves_right_though_workers_are_killed_at_random(way):
    chance = random.Random(7)
    with PidfdPoolExecutor(2, mp_context=way, intensity=1000, backoff=0.0) as pool:
        warm(pool)
        lost = 0
        for _ in range(12):
            futures = [(n, pool.submit(large.echo, numpy.full(MB // 4, float(n)))) for n in range(6)]
            futures += [(n, pool.submit(large.echo, bytes([n]) * MB)) for n in range(6)]
            chance.shuffle(futures)
            for n, future in futures:
                if chance.random() < 0.2:
                    for info in pool.workers():
                        if info.pid is not None:
                            with suppress(OSError), Pidfd.open(info.pid) as worker:
                                worker.send_signal(signal.SIGKILL)
                            break
                try:
                    result = future.result(timeout=30)
                except WorkerCrashed:
                    lost += 1
                else:
                    assert (result == n).all() if hasattr(result, "all") else result == bytes([n]) * MB
        assert lost <= pool.stats().crashes
        eventually(lambda: pool.stats().crashes, "somebody was killed")
        assert arena_of(pool).used <= arena_of(pool).limit


def test_the_memory_that_dead_workers_had_is_replaced(way):
    with PidfdPoolExecutor(1, mp_context=way, intensity=1000, backoff=0.0) as pool:
        array = numpy.zeros(MB // 8)
        warm(pool, array)
        for _ in range(arena.MAX_SEGMENTS // 4):
            assert type(pool.submit(large.echo_or_die, array, True).exception()) is WorkerCrashed
            pool.submit(large.echo_or_die, array, False).result()
        gc.collect()
        eventually(lambda: len(arena_of(pool)) < 10, "there are not more and more")
        assert large.lies_in_a_segment(pool.submit(large.echo, array).result())


def test_a_worker_that_dies_while_it_pickles_a_large_result_costs_its_task_only(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        warm(pool, numpy.zeros(MB))
        for _ in range(3):
            assert type(pool.submit(large.array_and_death, MB).exception()) is WorkerCrashed
            assert (pool.submit(large.echo, numpy.ones(MB)).result() == 1).all()


@pytest.mark.parametrize(
    "what",
    [
        "os.memfd_create",
        "os.posix_fallocate",
        "pidfdpool.transport.segments.memory.map_file",
        "pidfdpool.transport.segments.arena.Segment.duplicate",
    ],
)
def test_where_the_system_refuses_everything_goes_through_the_socket(pool, monkeypatch, what):
    import errno

    def refuse(*_arguments, **_options):
        refused.append(what)
        raise OSError(errno.EMFILE, "refused by the test")

    refused = []
    monkeypatch.setattr(what, refuse)
    array = numpy.arange(MB)
    for value in (b"x" * MB, b"y" * MB):
        assert pool.submit(large.echo, value).result() == value
        assert (pool.submit(large.echo, array).result() == array).all()
    assert refused


def test_a_worker_without_a_free_descriptor_gets_its_calls_through_the_socket(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.submit(large.use_up_descriptors).result()
        array = numpy.arange(MB)
        for _ in range(3):
            assert (pool.submit(large.echo, array).result() == array).all()
            assert pool.submit(large.echo, b"x" * MB).result() == b"x" * MB
        pool.submit(large.free_descriptors).result()
        assert pool.submit(large.lies_in_a_segment, array).result()
        assert eventually(
            lambda: large.lies_in_a_segment(pool.submit(large.make_array, MB, 1.0).result()), "results, too"
        )


def test_a_worker_that_cannot_load_what_segments_need_gets_its_calls_through_the_socket():
    with PidfdPoolExecutor(1) as pool:
        pool.submit(large.hide_what_segments_need, True).result()
        for size in (100_000, 1_000_000, 100_000):
            assert pool.submit(large.echo, b"x" * size).result() == b"x" * size
        pool.submit(large.hide_what_segments_need, False).result()
        for _ in range(3):
            assert pool.submit(large.echo, b"x" * 1_000_000).result() == b"x" * 1_000_000
        assert not pool.stats().deaths


def test_a_host_at_its_limit_of_descriptors_goes_on(way):
    done = run_python(
        f"""
        import os, resource
        from pidfdpool import PidfdPoolExecutor
        from tests import calls
        from tests import large
        if __name__ == "__main__":
            with PidfdPoolExecutor(2, mp_context={way!r}) as pool:
                list(pool.map(large.time.sleep, [0.1] * 4, chunksize=1))
                resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, 4096))
                for size in (100_000, 1_000_000, 5_000_000) * 3:
                    assert pool.submit(large.echo, b"x" * size).result() == b"x" * size
                    assert len(pool._pool.leases.arena) == 0
                resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 4096))
                for size in (100_000, 1_000_000, 5_000_000) * 3:
                    assert pool.submit(large.echo, b"x" * size).result() == b"x" * size
                assert len(pool._pool.leases.arena) > 0
            print("ok")
        """
    )
    assert (done.stdout, done.stderr) == ("ok\n", "")


def test_nested_pools_carry_large_things(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        for _ in range(2):
            assert pool.submit(large.sum_in_a_pool, numpy.ones(MB), way).result(timeout=30) == [MB] * 4


@pytest.mark.parametrize("value", [-1, 1.5, "1", None, True])
def test_the_option_is_checked(value):
    with pytest.raises((TypeError, ValueError), match="segment_memory"):
        PidfdPoolExecutor(1, segment_memory=value)
