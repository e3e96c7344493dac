"""Minutes of chaos, all at once and at full load: workers and templates are killed, stopped and crash; tasks time
out, fall silent, are cancelled, killed and tried again, close and write into what is not theirs, and return and raise
objects whose own code gets in the way; maps and event loops use the pool; it is resized; the host forks.

Every future must resolve exactly once, with the right value or an error that can be accounted for, and nothing may be
left. Not part of the usual run; `tox -e soak`. The seed is printed, and PIDFDPOOL_SEED replays its choices.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import random
import signal
import subprocess
import time
from collections import Counter
from concurrent.futures import CancelledError

import pytest

import pidfdpool
from pidfdpool import HeartbeatLost, InheritedFutureError, PidfdPoolExecutor, TaskKilled, TaskTimeout, WorkerCrashed
from pidfdpool.pidfd import Pidfd
from pidfdpool.process import describe
from tests import calls, hostile
from tests import hostile_objects as objects
from tests.conditions import children, eventually, is_alive, is_zombie

SECONDS = float(os.environ.get("PIDFDPOOL_SOAK_SECONDS", "600"))
AHEAD = 200  # futures that may be pending while more are submitted


def beat(number, beats):
    for _ in range(beats):
        time.sleep(0.01)
        pidfdpool.heartbeat()
    return number


def fall_silent(number):
    time.sleep(60)
    return number


def spin(number):
    while True:
        number += 0


def ignore_sigterm_and_spin(number):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    spin(number)


def crash(number):
    signal.raise_signal(signal.SIGSEGV)
    return number


def crash_at_first(number):
    if pidfdpool.current_task().attempt == 1:
        signal.raise_signal(signal.SIGKILL)
    return number


def leave_a_child(number):
    subprocess.Popen(["sleep", "1000"])
    if number % 2:
        crash(number)
    return number


def be_unhealthy(number):
    pidfdpool.unhealthy("chaos")
    return number


OBJECTS = (
    "Refusal",
    "Untold",
    "OfUnnamed",
    "Untraced",
    "Unrelated",
    "Classless",
    "NeitherTrueNorFalse",
    "Incomparable",
)


def raise_what_resists(number):
    objects.raise_now(OBJECTS[number % len(OBJECTS)])


def return_what_resists(number):
    return objects.give(OBJECTS[number % len(OBJECTS)])


def return_what_is_not_pickled(number):
    return lambda: number, number.__class__.__dict__


def return_much(number):
    return bytes(200_000 + number)


def write_to_wrong_descriptors(number):
    hostile.babble(b"progress: %d of 100\n" % number, seconds=60)


def close_all_descriptors(number):
    hostile.close_everything_and("sleep")


def close_stderr(number):
    hostile.close_standard_error()
    return number


def meddle_with_tokens(number):
    hostile.put_tokens(3) if number % 2 else hostile.drain_tokens()
    return number


# what is run, with which options, whether it may succeed, and the errors that need no other explanation
KINDS = (
    (30, calls.double, {}, True, ()),
    (10, calls.double, {"priority": 5, "deadline": 30.0}, True, (pidfdpool.DeadlineExceeded,)),
    (5, beat, {"heartbeat_timeout": 1.0}, True, (HeartbeatLost,)),
    (1, fall_silent, {"heartbeat_timeout": 0.2}, False, (HeartbeatLost,)),
    (1, spin, {"timeout": 0.1}, False, (TaskTimeout,)),
    (1, ignore_sigterm_and_spin, {"timeout": 0.1, "grace": 0.1}, False, (TaskTimeout,)),
    (1, crash, {}, False, (WorkerCrashed,)),
    (2, crash_at_first, {"retries": 5, "retry_backoff": 0.01}, True, (WorkerCrashed,)),
    (2, leave_a_child, {}, True, (WorkerCrashed,)),
    (2, be_unhealthy, {}, True, ()),
    (2, raise_what_resists, {}, False, (Exception,)),
    (2, return_what_resists, {}, False, (pidfdpool.PayloadError,)),
    (1, return_what_is_not_pickled, {}, False, (Exception,)),
    (2, return_much, {}, True, ()),
    (1, write_to_wrong_descriptors, {}, False, (WorkerCrashed,)),
    (1, close_all_descriptors, {}, False, (WorkerCrashed,)),
    (1, close_stderr, {}, True, ()),
    (1, meddle_with_tokens, {}, True, ()),
)
MAY_END_A_CALL = (WorkerCrashed, TaskTimeout)  # whatever the call was


class Chaos:
    """One run: what was submitted, and what was done to it."""

    def __init__(self, pool, way, chance, harms):
        self.pool = pool
        self.way = way
        self.chance = chance
        self.harms = harms
        self.listened_to = 0
        self.pending = {}
        self.told = Counter()
        self.outcomes = Counter()
        self.killed = set()
        self.stopped = []
        self.number = 0

    def submit(self):
        self.number += 1
        number = self.number
        _, function, options, *_ = kind = self.chance.choices(KINDS, [kind[0] for kind in KINDS])[0]
        arguments = (number, 3) if function is beat else (number,)
        future = self.pool.options(**options).submit(function, *arguments)
        if self.chance.random() < 0.3:  # of the others, whoever waits for one may read the channels itself
            self.listened_to += 1
            future.add_done_callback(lambda _, number=number: self.told.update([number]))
        self.pending[number] = future, kind

    def harm(self):
        dice = self.chance.random()
        if dice < 0.08:
            self.signal_one(self.chance.choice(self.harms))
        elif dice < 0.10:
            self.choose().cancel()
        elif dice < 0.13:
            future = self.choose()
            self.killed.add(future)
            future.kill()
        elif dice < 0.15:
            self.pool.resize(self.chance.randint(1, 4))
        elif dice < 0.153:
            fork_and_use(self.pool, self.choose())
        elif dice < 0.156:
            self.map()
        elif dice < 0.159:
            asyncio.run(self.wait_in_a_loop())
        elif dice < 0.17:
            assert self.pool.stats().pending >= 0
            assert len(self.pool.workers()) <= 8

    def map(self):
        """Map tiny calls: their results come in order, up to what has ended one of them."""
        came = []
        try:
            came.extend(self.pool.map(calls.double, range(500)))
        except MAY_END_A_CALL:
            self.outcomes["map ended"] += 1
        assert came == list(range(0, 2 * len(came), 2))

    async def wait_in_a_loop(self):
        """Await a few calls, and cancel one; there may be no room for them at once."""
        awaiting = [asyncio.ensure_future(self.pool.run(calls.double, number)) for number in range(20)]
        await asyncio.sleep(0)
        awaiting[7].cancel()
        for number, outcome in enumerate(await asyncio.gather(*awaiting, return_exceptions=True)):
            assert (
                outcome == 2 * number
                or type(outcome) is asyncio.CancelledError
                or isinstance(outcome, MAY_END_A_CALL)
            )

    def choose(self):
        """Return any future, or one of those that probably run."""
        futures = [future for future, _ in self.pending.values()]
        return self.chance.choice(futures[:6] if self.chance.random() < 0.5 else futures)

    def signal_one(self, number):
        template = self.pool._pool.core.template if self.pool._pool else None
        if template is None or template.handle is None:
            return
        try:
            victims = [pid for pid in children(template.handle.pid) if is_alive(pid)]
            if self.way == "spawn" and self.chance.random() < 0.05:
                victims = [template.handle.pid]
            if victims:
                with Pidfd.open(self.chance.choice(victims)) as victim:
                    victim.send_signal(number)
        except (ProcessLookupError, ValueError, OSError):
            return  # it has ended meanwhile

    def settle(self, most):
        """Wait until no more than so many are pending, and look at those that are done."""
        while len(self.pending) > most:
            number, (future, kind) = next(iter(self.pending.items()))
            try:
                error = future.exception(timeout=60)
            except CancelledError:
                self.outcomes["cancelled"] += 1
            else:
                self.check(number, future, kind, error)
            del self.pending[number]
            self.killed.discard(future)

    def check(self, number, future, kind, error):
        _, function, _, succeeds, own = kind
        self.outcomes[describe.type_name(error)] += 1
        if error is None:
            assert succeeds, f"{function.__name__} cannot have succeeded"
            expected = {calls.double: 2 * number, return_much: bytes(200_000 + number)}.get(function, number)
            assert future.result() == expected
        elif type(error) is TaskKilled:
            assert future in self.killed
        else:  # a stopped worker exceeds the pool's own timeout; any worker may have been killed
            assert issubclass(type(error), (*MAY_END_A_CALL, *own)), (function.__name__, type(error))


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("ahead", [True, False], ids=["ahead", "limited"])
def test_chaos_at_full_load_resolves_every_future_once_with_the_right_value_or_error(way, ahead):
    """Where each task is limited in time, none is sent ahead, and workers may be stopped as well."""
    seed = int(os.environ.get("PIDFDPOOL_SEED", random.randrange(1 << 30)))
    print("PIDFDPOOL_SEED", seed, way, ahead)
    end = time.monotonic() + SECONDS / 4
    rules = {"idle_timeout": 1.0, "max_pending": 2 * AHEAD}
    harms = [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM]
    if not ahead:
        rules |= {"timeout": 1.0, "grace": 0.2, "max_tasks_per_child": 50}
        harms.append(signal.SIGSTOP)
    limits = {
        "intensity": 100_000,
        "backoff_limit": 0.2,
        "start_timeout": 5.0,
        "spawn_timeout": 2.0,
        "stop_grace": 2.0,
    }
    with PidfdPoolExecutor(3, mp_context=way, initializer=faulthandler.disable, **rules, **limits) as pool:
        chaos = Chaos(pool, way, random.Random(seed), harms)
        while time.monotonic() < end:
            chaos.submit()
            chaos.harm()
            chaos.settle(AHEAD)
        chaos.settle(0)
        print(chaos.number, "tasks", dict(chaos.outcomes), pool.stats())
        eventually(lambda: len(chaos.told) == chaos.listened_to, "every future has called back")
        assert set(chaos.told.values()) == {1}
        template = pool._pool.core.template
        if template is not None and template.handle is not None:
            pid = template.handle.pid
            eventually(lambda: not any(map(is_zombie, children(pid))), "no zombie is left")


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
