"""Large payloads for which there is no segment: through the channel, from where they lie to where they stay."""

from __future__ import annotations

import pickle
import random

import pytest

from pidfdpool import PidfdPoolExecutor, WorkerCrashed
from tests import large
from tests.conditions import run_python

numpy = pytest.importorskip("numpy")

MB = 1 << 20


@pytest.fixture(params=["fork", "spawn"])
def pool(request):
    with PidfdPoolExecutor(2, mp_context=request.param, segment_memory=0) as pool:
        yield pool


def test_everything_arrives_as_it_was_and_with_its_type(pool):
    for size in (60_000, 65_536, 70_000, MB, 5 * MB + 3):
        check_arrivals(pool, size)


def check_arrivals(pool, size):
    data = random.Random(size).randbytes(size)
    array = numpy.frombuffer(data, dtype=numpy.uint8).copy()
    for value in (data, bytearray(data), [data, bytearray(data), data, "text" * (size // 4), {"it": data[::-1]}]):
        for _ in range(3):
            returned = pool.submit(large.echo, value).result()
            assert type(returned) is type(value)
            assert returned == value
    for _ in range(3):
        returned, other = pool.submit(large.echo, (array, data)).result()
        assert (returned == array).all()
        assert returned.flags.writeable
        returned[0] ^= 255
        assert (type(other), other) == (bytes, data)


@pytest.mark.parametrize("kind", ["bytearray", "array", "PickleBuffer"])
@pytest.mark.parametrize("before", [0, 3], ids=["the first", "a later one"])
def test_a_call_is_a_snapshot_of_the_moment_of_submit(tmp_path, kind, before):
    memory = bytearray(b"a") * (3 * MB)
    argument = {
        "bytearray": memory,
        "array": numpy.frombuffer(memory, dtype=numpy.uint8),
        "PickleBuffer": pickle.PickleBuffer(memory),
    }[kind]
    with PidfdPoolExecutor(1, segment_memory=0, prefetch=0) as pool:
        for _ in range(before):
            pool.submit(large.echo, argument).result()
        path = str(tmp_path / "go")
        waiting = pool.submit(large.wait_for, path)
        futures = [pool.submit(large.echo, argument), pool.submit(bytes, argument)]
        for at in (0, MB, len(memory) - 1):
            memory[at] = ord("b")
        open(path, "w").close()
        waiting.result()
        assert bytes(futures[0].result()) == futures[1].result() == b"a" * (3 * MB)


def test_a_retried_call_gets_the_same_argument():
    data = b"d" * (5 * MB)
    with PidfdPoolExecutor(1, segment_memory=0) as pool:
        warm = pool.submit(large.echo, data).result()
        assert warm == data
        with pytest.raises(WorkerCrashed):
            pool.submit(large.echo_or_die, data, True).result()
        array = numpy.ones(MB)
        future = pool.options(retries=1).submit(large.increment_and_die_at_first, array)
        assert future.result() == 2.0 * MB
        assert array.sum() == MB


def test_a_worker_that_is_killed_while_it_reads_a_call_fails_only_that_call():
    data = b"d" * (50 * MB)
    with PidfdPoolExecutor(1, segment_memory=0) as pool:
        for _ in range(5):
            doomed = pool.submit(large.echo_or_die, data, True)
            later = pool.submit(large.echo, data)
            with pytest.raises(WorkerCrashed):
                doomed.result()
            assert later.result() == data


MEASURED = """
    import sys
    from pidfdpool import PidfdPoolExecutor
    from tests import large

    def peak():
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) << 10

    SIZE = 100 << 20
    with PidfdPoolExecutor(1, {options}) as pool:
        pool.submit(large.make, 10).result()
        {before}
        start = peak()
        for _ in range(3):
            {call}
        print((peak() - start) / SIZE)
"""


@pytest.mark.parametrize(
    "options", ["segment_memory=0", "segment_memory=1 << 20", "segment_memory=1 << 20, prefetch=0"]
)
def test_bytes_that_are_an_argument_cost_the_host_no_memory(options):
    code = MEASURED.format(
        options=options, before="data = bytes([7]) * SIZE", call="assert pool.submit(len, data).result() == SIZE"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.1


@pytest.mark.parametrize("options", ["segment_memory=0", "segment_memory=1 << 20"])
def test_bytes_that_are_a_result_cost_the_host_their_own_size(options):
    call = "data = None; data = pool.submit(large.make, SIZE).result(); assert len(data) == data.count(1) == SIZE"
    done = run_python(MEASURED.format(options=options, before="pool.submit(large.make, 1 << 20).result()", call=call))
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.2
