"""Minutes of chaos: workers and templates are killed and stopped, hosts fork, futures are cancelled, all at once.

Not part of the usual run; `tox -e soak`. The seed is printed, and PIDFDPOOL_SEED replays it.
"""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from pidfdpool import InheritedFutureError, PidfdPoolExecutor, WorkerCrashed
from pidfdpool.pidfd import Pidfd
from tests.conditions import children, eventually, is_alive, is_zombie
from tests.pool import calls

SECONDS = float(os.environ.get("PIDFDPOOL_SOAK_SECONDS", "300"))


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 120)
def test_chaos_at_full_load_resolves_every_future_with_the_right_value_or_error(way):
    seed = int(os.environ.get("PIDFDPOOL_SEED", random.randrange(1 << 30)))
    print("PIDFDPOOL_SEED", seed)
    chance = random.Random(seed)
    futures = {}
    number = 0
    end = time.monotonic() + SECONDS / 2
    with PidfdPoolExecutor(3, mp_context=way, max_tasks_per_child=50) as pool:
        while time.monotonic() < end:
            number += 1
            futures[number] = pool.submit(calls.sleep, chance.choice([0, 0, 0, 0.002]), number)
            dice = chance.random()
            if dice < 0.02:
                kill_one(pool, chance, with_template=way == "spawn")
            elif dice < 0.05:
                futures[chance.randint(1, number)].cancel()
            elif dice < 0.052:
                fork_and_use(pool, futures[number])
            if number % 50 == 0:
                futures[number - 20].exception() if not futures[number - 20].cancelled() else None
        for number, future in futures.items():
            if future.cancelled():
                continue
            error = future.exception(timeout=60)
            assert isinstance(error, WorkerCrashed) if error else future.result() == number
        template = pool.submit(os.getppid).result(timeout=60)
        eventually(lambda: not any(map(is_zombie, children(template))), "no zombie is left")


def kill_one(pool, chance, *, with_template):
    template = pool._pool.template if pool._pool else None
    if template is None:
        return
    victims = [pid for pid in children(template.handle.pid) if is_alive(pid)]
    if with_template and chance.random() < 0.02:
        victims = [template.handle.pid]
    if victims:
        try:
            with Pidfd.open(chance.choice(victims)) as victim:
                victim.send_signal(chance.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM]))
        except (ProcessLookupError, ValueError):
            return


def fork_and_use(pool, pending):
    pid = os.fork()
    if not pid:
        try:
            assert pool.submit(calls.double, 2).result(timeout=30) == 4
            assert pending.cancelled() or pending.done() or isinstance(pending.exception(), InheritedFutureError)
            pool.shutdown()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
