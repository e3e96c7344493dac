"""Where memory ends: what does not fit costs its own future, and what comes behind it arrives."""

from __future__ import annotations

import pytest

from pidfdpool import PidfdPoolExecutor
from tests import calls, hostile
from tests.conditions import run_python

MB = 1 << 20


@pytest.mark.parametrize("segments", [True, False])
def test_a_result_too_large_for_the_host_is_a_memory_error_of_its_own_future(segments):
    done = run_python(
        f"""
        import resource
        from pidfdpool import PayloadError, PidfdPoolExecutor
        from tests import calls
        from tests import hostile
        from tests.conditions import eventually
        MB = 1 << 20

        def told(future):
            error = future.exception(timeout=30)
            assert isinstance(error, MemoryError) and isinstance(error, PayloadError), repr(error)
            assert str(error).split("(")[0] == "the host ", error
            return str(error)

        options = {{}} if {segments} else {{"segment_memory": 0}}
        with PidfdPoolExecutor(2, **options) as pool:
            pool.submit(hostile.make_bytes, 1).result()
            limits, taken = resource.getrlimit(resource.RLIMIT_AS), hostile.address_space()
            # One cannot be received; the other can, and not be rebuilt beside what was received, as bytes could. What
            # is larger than 32 MB the C library never puts where something else was: that has been given back.
            for size, spare in ((40 * MB, 8 * MB), (40 * MB, 60 * MB))[: 1 if {segments} else 2]:
                # The pool thread may hold a little longer what it has received; given back later, it would be room.
                eventually(lambda: hostile.address_space() < taken + 20 * MB, "the last result is given back")
                hostile.limit_memory(spare)
                neighbour = pool.submit(calls.sleep, 0.05, "neighbour")
                for large in (hostile.make_text, hostile.make_large_error):
                    future = pool.submit(large, size)
                    behind = [pool.submit(calls.double, number) for number in range(20)]
                    text = told(future)
                    assert [one.result(timeout=30) for one in behind] == [2 * number for number in range(20)]
                assert neighbour.result(timeout=30) == "neighbour"
                resource.setrlimit(resource.RLIMIT_AS, limits)
                del future, behind
                assert len(pool.submit(hostile.make_bytes, size).result(timeout=30)) == size
            assert pool.stats().deaths == 0
        print("ok")
        """
    )
    assert (done.stdout, done.stderr) == ("ok\n", "")


@pytest.mark.parametrize("segments", [True, False])
def test_a_call_too_large_for_the_worker_is_a_memory_error_of_its_own_future(segments):
    options = {} if segments else {"segment_memory": 0}
    with PidfdPoolExecutor(1, initializer=hostile.limit_memory, initargs=(10 * MB,), **options) as pool:
        # There is room for 8 MB, but not twice: a call is copied out of its segment, and text out of what came.
        for argument in (bytes(20 * MB), bytes(10), bytes(20 * MB), "x" * (8 * MB)):
            size = len(argument)
            future, behind = pool.submit(len, argument), pool.submit(calls.double, 21)
            assert behind.result(timeout=30) == 42
            if size > 10:
                assert isinstance(future.exception(timeout=30), MemoryError)
            else:
                assert future.result() == size
        if not segments:
            assert pool.submit(len, bytes(8 * MB)).result(timeout=30) == 8 * MB, "bytes are received in their place"
        for large in (hostile.make_bytes, hostile.make_large_error):
            assert pool.submit(large, 20 * MB).exception(timeout=30) is not None
        assert pool.submit(calls.double, 21).result(timeout=30) == 42
        assert pool.stats().deaths == 0


def test_what_is_read_past_holds_no_memory_and_neither_does_the_error():
    done = run_python(
        """
        import resource
        from pidfdpool import PidfdPoolExecutor
        from tests import hostile
        MB = 1 << 20

        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * resource.getpagesize()

        with PidfdPoolExecutor(1, segment_memory=0) as pool:
            pool.submit(hostile.make_bytes, 1).result()
            before = resident()
            hostile.limit_memory(50 * MB)
            for size in (60 * MB, 40 * MB):  # one cannot be received, the other not be rebuilt
                futures = [pool.submit(hostile.make_bytes, size) for _ in range(2)]
                assert all(isinstance(future.exception(timeout=30), MemoryError) for future in futures)
                assert resident() - before < 30 * MB, resident() - before
        print("ok")
        """
    )
    assert (done.stdout, done.stderr) == ("ok\n", "")
