"""A signal handler raises at each place of a pool's first start, in a program that catches it and goes on.

All signals are blocked in most of it. But another thread of the host's may take one, and its handler runs in the main
thread all the same.
"""

from __future__ import annotations

import signal
import threading
from itertools import islice

import pytest

from pidfdpool import PidfdPoolExecutor, PoolBroken
from pidfdpool.loop.template_starter import TemplateStarter
from tests.interrupting import Interrupted, places

FIRST, LAST = TemplateStarter.run_first.__code__, TemplateStarter._start_thread_or_end.__code__


def begin_by_submit(pool):
    pool.submit(abs, -1)


def begin_by_prestart(pool):
    pool.prestart(1, wait=False)


@pytest.mark.parametrize(("begin", "code"), [(begin_by_submit, FIRST), (begin_by_prestart, LAST)])
def test_a_pool_goes_on_or_says_that_it_is_broken_wherever_its_first_start_is_interrupted(begin, code):
    pools = []

    def attempt():
        pool = PidfdPoolExecutor(1, mp_context="fork")
        pools.append(pool)
        return lambda: begin(pool)

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for place in islice(places(attempt, lambda begun: begun is code), 70):
        assert signal.pthread_sigmask(signal.SIG_SETMASK, before) == before, place
        for pool in pools:
            try:
                assert pool.submit(abs, -3).result(timeout=60) == 3
            except PoolBroken as error:
                assert Interrupted.__name__ in str(error), place  # noqa: PT017  it is one outcome of two
            pool.shutdown()
        pools.clear()
    for pool in pools:
        pool.shutdown()
    threading._limbo.clear()  # it keeps threads whose start was interrupted before they were there
