"""Times that are longer than what the kernel's calls can count, wherever a time is given."""

from __future__ import annotations

import asyncio
import fractions
import math
import sys
import threading
import time

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.pidfd import Pidfd, PidfdMisused
from tests import calls
from tests.conditions import eventually

DAYS = 60 * 86400.0  # more milliseconds than an int holds
LONGEST = 1e308
OF_THE_POOL = (
    *("timeout", "grace", "deadline", "retry_backoff", "retry_backoff_limit", "heartbeat_timeout", "memory_interval"),
    *("max_age", "idle_timeout", "young_age", "period", "backoff", "backoff_limit", "start_timeout"),
    *("spawn_timeout", "stop_grace"),
)


@pytest.mark.parametrize("long", [DAYS, LONGEST], ids=["days", "longest"])
def test_a_pool_works_with_the_longest_times(long):
    every = dict.fromkeys(OF_THE_POOL, long)
    with PidfdPoolExecutor(1, **every, hard_memory_per_child=sys.maxsize, intensity=sys.maxsize) as pool:
        assert pool.submit(calls.double, 2).result(timeout=long) == 4
        assert pool.submit(calls.sleep, 0.05, "done").result(timeout=long) == "done"
        # The pool thread goes to sleep with these deadlines.
        slow = pool.submit(calls.sleep, 0.05, "done")
        eventually(slow.done, "the pool thread has gone on")
        assert pool.submit(calls.double, "x").exception(timeout=long) is None
        # Calls that share a task are given their deadline in another unit.
        assert list(pool.map(calls.double, range(5))) == [0, 2, 4, 6, 8]
        assert list(pool.map(calls.double, range(5), buffersize=2)) == [0, 2, 4, 6, 8]
        assert [one.value for one in pool.map(calls.double, range(5), return_exceptions=True)] == [0, 2, 4, 6, 8]


def test_work_for_the_longest_time_may_be_sent_ahead():
    with PidfdPoolExecutor(1, prefetch=LONGEST, retries=sys.maxsize, segment_memory=sys.maxsize) as pool:
        futures = [pool.submit(calls.double, number) for number in range(200)]
        assert [future.result(timeout=LONGEST) for future in futures] == [2 * number for number in range(200)]
        assert len(pool.submit(calls.double, b"x" * 200_000).result(timeout=60)) == 400_000


def test_whoever_waits_may_do_so_for_any_number_of_seconds(tmp_path):
    with PidfdPoolExecutor(1) as pool:
        for long in (DAYS, LONGEST, math.inf, 10**400, fractions.Fraction(10**12, 3)):
            assert pool.submit(calls.sleep, 0.01, 5).result(timeout=long) == 5
            assert pool.submit(calls.sleep, 0.01, 5).exception(timeout=long) is None
            for options in ({}, {"chunksize": 2}, {"buffersize": 1}, {"chunksize": sys.maxsize}):
                assert list(pool.map(calls.double, [1, 2], timeout=long, **options)) == [2, 4]
                assert sorted(pool.map_unordered(calls.double, [1, 2], timeout=long, **options)) == [2, 4]
        assert pool.prestart(timeout=LONGEST) == 1
        assert asyncio.run(_amapped(pool)) == [2, 4]
        # By a condition, where nobody may lead.
        future = pool.submit(calls.sleep, 0.05, 5)
        future.add_done_callback(str)
        assert future.result(timeout=LONGEST) == 5
        with pytest.raises(TimeoutError):
            pool.submit(calls.wait_for, str(tmp_path / "release")).result(timeout=-math.inf)
        (tmp_path / "release").touch()


async def _amapped(pool):
    return [result async for result in pool.amap(calls.double, [1, 2], timeout=LONGEST)]


def test_what_nobody_can_wait_for_is_refused_with_name_and_value(tmp_path):
    with PidfdPoolExecutor(1) as pool:
        future = pool.submit(calls.run_until, str(tmp_path / "runs"), str(tmp_path / "release"), 5)
        for wait in (future.result, future.exception, lambda timeout: pool.map(calls.double, [1], timeout=timeout)):
            with pytest.raises(ValueError, match="timeout must be a number of seconds, or None, not nan"):
                wait(timeout=math.nan)
            with pytest.raises(TypeError, match="timeout must be a number of seconds, or None, not '5'"):
                wait(timeout="5")
        with pytest.raises(ValueError, match="timeout must be .* not inf"):
            pool.prestart(timeout=math.inf)
        (tmp_path / "release").touch()
        assert future.result(timeout=60) == 5


def test_a_pidfd_is_waited_for_any_number_of_seconds():
    with Pidfd.self() as process:
        for long in (DAYS, LONGEST, math.inf, 10**400):
            failure = []

            def wait(long=long, failure=failure):
                try:
                    with Pidfd.self() as mine:
                        threading.Timer(0.02, mine.close).start()
                        mine.wait(long)
                except BaseException as error:
                    failure.append(error)

            thread = threading.Thread(target=wait)
            thread.start()
            thread.join(20)
            assert not thread.is_alive()
            assert isinstance(failure[0], PidfdMisused), "it waited until it was closed"
        began = time.monotonic()
        assert process.wait(fractions.Fraction(1, 100)) is False
        assert time.monotonic() - began >= 0.009
        for wrong in (math.nan, -1, "5", 1j):
            with pytest.raises(PidfdMisused, match="timeout"):
                process.wait(wrong)
