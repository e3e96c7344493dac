"""What is kept of a shared executor, and what takes its place. With executors that only take notes."""

from __future__ import annotations

import asyncio
import os
import threading
from types import SimpleNamespace

import pytest

from pidfdpool import Policy, get_shared_executor
from pidfdpool.executor import shared
from pidfdpool.scheduler.policy import PoolOptions, TaskOptions
from pidfdpool.worker import context


class Executor:
    """In the place of a pool."""

    def __init__(self, size, mp_context=None, initializer=None, initargs=(), preload=(), **rules):
        self.given = {
            "mp_context": mp_context, "initializer": initializer, "initargs": initargs, "preload": preload
        }  # fmt: skip
        self._policy = Policy(2 if size is None else size, **rules)
        self._max_workers, self.asked_for = self._policy.max_workers, size
        self.state, self.sizes = "open", []

    def _is_open(self):
        return self.state == "open"

    def stats(self):
        return SimpleNamespace(broken="why" if self.state == "broken" else None)

    def resize(self, size):
        self.sizes.append(size)
        self._max_workers = size

    def options(self, **options):
        return self, options


def made(kept=None, size=None, given=None, **rules):
    return shared._kept_or_new(kept, Executor, size, rules, given or {})


# ---- a first one --------------------------------------------------------------------------------------------------


def test_the_first_one_gets_what_was_asked_for_and_its_workers_leave_after_five_minutes():
    kept = made(None, 3, {"initializer": abs, "initargs": (1,)}, max_pending=5)
    assert kept.executor.asked_for == 3
    assert kept.executor.given["initializer"] is abs
    assert kept.executor.given["initargs"] == (1,)
    assert kept.given == {"initializer": abs, "initargs": (1,)}
    assert (kept.executor._policy.max_pending, kept.executor._policy.idle_timeout) == (5, 300.0)
    assert made(idle_timeout=7.0).executor._policy.idle_timeout == 7.0
    assert made(idle_timeout=None).executor._policy.idle_timeout is None
    assert made().executor.asked_for is None, "the constructor knows the CPUs"


# ---- one that there is --------------------------------------------------------------------------------------------


def test_the_one_that_there_is_grows_and_does_not_shrink():
    kept = made(None, 3)
    for size, sizes in ((None, []), (2, []), (3, []), (4, [4]), (3, [4]), (6, [4, 6])):
        assert made(kept, size) is kept
        assert kept.executor.sizes == sizes


def test_what_is_given_again_is_no_difference_and_what_is_left_out_neither():
    given = {"mp_context": "spawn", "initializer": abs, "initargs": (1,), "preload": ("json",)}
    kept = made(None, 3, given, max_pending=5)
    assert made(kept) is kept
    assert made(kept, None, {**given, "mp_context": "forkserver"}, max_pending=5) is kept
    plain = made(None, 3)
    defaults = {"mp_context": None, "initializer": None, "initargs": (), "preload": ()}
    assert made(plain, None, defaults, max_pending=None, idle_timeout=300) is plain


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (
            {"given": {"initializer": abs}},
            {"given": {"initializer": len}},
            "initializer=<built-in function abs>, and",
        ),
        ({}, {"given": {"preload": ("json",)}}, r"preload=\(\), and preload=\('json',\) is asked for now"),
        (
            {"given": {"mp_context": "fork"}},
            {"given": {"mp_context": None}},
            "mp_context='fork', and mp_context=None",
        ),
        ({"max_pending": 5}, {"max_pending": 6}, "max_pending=5, and max_pending=6 is asked for now"),
    ],
)
def test_a_difference_is_refused_and_nothing_is_changed(before, now, told):
    kept = made(None, 3, **before)
    with pytest.raises(ValueError, match=f"^the shared executor of this process was made with {told}") as raised:
        made(kept, 9, **now)
    name = told.partition("=")[0]
    end = f"Leave {name} out, or make a pool of your own with PidfdPoolExecutor."
    assert str(raised.value).endswith(end)
    assert kept.executor.sizes == []


def test_a_rule_is_compared_with_what_it_would_be_for_the_larger_size():
    kept = made(None, 3, min_workers=3)
    assert made(kept, 2, min_workers=3) is kept, "it has as many workers, whatever is asked for"
    with pytest.raises(ValueError, match="min_workers"):
        made(kept, 4, min_workers=4)


# ---- one that has ended -------------------------------------------------------------------------------------------


def test_one_that_was_shut_down_leaves_nothing_to_the_next():
    kept = made(None, 3, {"initializer": abs}, max_pending=5, idle_timeout=7.0)
    kept.executor.state = "shut down"
    other = made(kept, 2)
    assert other.executor is not kept.executor
    assert (other.executor.asked_for, other.given, other.executor.given["initializer"]) == (2, {}, None)
    assert (other.executor._policy.max_pending, other.executor._policy.idle_timeout) == (None, 300.0)


def test_one_that_is_broken_is_followed_by_one_of_its_kind_with_what_is_asked_for_now():
    kept = made(None, 3, {"initializer": abs, "initargs": (1,)}, max_pending=5, idle_timeout=7.0, spin=0.5)
    kept.executor.resize(4)
    kept.executor.state = "broken"
    for size, expected in ((None, 4), (2, 4), (6, 6)):
        other = made(kept, size, {"initargs": (2,)}, spin=0.0)
        assert other.executor is not kept.executor
        assert other.executor.asked_for == expected
        assert other.given == {"initializer": abs, "initargs": (2,)}
        assert other.executor.given["initializer"] is abs
        policy = other.executor._policy
        assert (policy.max_pending, policy.idle_timeout, policy.spin) == (5, 7.0, 0.0)


def test_every_option_of_the_pool_goes_over_to_the_one_that_follows_and_none_of_tasks():
    rules = {"on_crash": "break", "max_age": 60.0, "max_tasks_per_child": 7, "threads_per_worker": 1, "backoff": 3.0}
    assert set(rules) <= set(PoolOptions.__annotations__) - set(TaskOptions.__annotations__)
    kept = made(None, 3, **rules)
    kept.executor._policy = kept.executor._policy.refined({"timeout": 5.0})
    kept.executor.state = "broken"
    policy = made(kept).executor._policy
    assert {name: getattr(policy, name) for name in rules} == rules
    assert policy.timeout is None


# ---- of a process -------------------------------------------------------------------------------------------------


@pytest.fixture
def process(monkeypatch):
    """Begin with nothing that is shared."""
    monkeypatch.setattr(shared, "_shared", shared._OfProcess())
    monkeypatch.setattr(shared, "SharedExecutor", Executor)
    monkeypatch.setattr(shared, "SharedSerialExecutor", type("Serial", (Executor,), {}))
    return shared._shared


def test_options_of_tasks_give_a_view_and_are_none_of_the_pools(process):
    executor, options = get_shared_executor(2, timeout=5.0, priority=3, max_pending=7)
    assert options == {"timeout": 5.0, "priority": 3}
    assert executor is process.pool.executor
    assert (executor._policy.timeout, executor._policy.max_pending) == (None, 7)
    assert get_shared_executor(max_pending=7) is executor


@pytest.mark.parametrize(
    ("nested", "kind", "size"),
    [("serial", "Serial", None), ("share", "Executor", 2), ("pool", "Executor", None)],
)
def test_what_there_is_in_a_worker(process, monkeypatch, nested, kind, size):
    monkeypatch.setattr(context, "worker", SimpleNamespace(siblings=4))
    process.worker = context.worker
    monkeypatch.setattr(shared.cpus, "usable", lambda: 8)
    executor = get_shared_executor(nested=nested)
    assert (type(executor).__name__, executor.asked_for) == (kind, size)
    assert (process.serial if nested == "serial" else process.pool).executor is executor
    assert (process.pool if nested == "serial" else process.serial) is None
    assert get_shared_executor(nested=nested) is executor


@pytest.mark.parametrize(("usable", "size"), [(8, 2), (9, 2), (7, 1), (3, 1)])
def test_a_share_is_rounded_down_and_at_least_one_worker_which_keeps_no_more(process, monkeypatch, usable, size):
    monkeypatch.setattr(context, "worker", SimpleNamespace(siblings=4))
    process.worker = context.worker
    monkeypatch.setattr(shared.cpus, "usable", lambda: usable)
    executor = get_shared_executor(50, nested="share", min_workers=2)
    assert (executor.asked_for, executor._policy.min_workers) == (size, min(2, size))
    monkeypatch.setattr(context, "worker", None)


def test_outside_of_a_worker_it_does_not_matter_what_is_to_be_nested(process):
    pools = {get_shared_executor(5, nested=nested) for nested in ("serial", "share", "pool")}
    assert pools == {process.pool.executor}
    assert process.pool.executor.asked_for == 5


def test_a_forked_child_has_a_lock_of_its_own_and_what_the_host_had(process):
    executor, lock = get_shared_executor(3), process.lock
    process.renew_after_fork()
    assert process.lock is lock, "it is the same process"
    process.owner = os.getpid() + 1
    process.renew_after_fork()
    assert process.lock is not lock
    assert process.owner == os.getpid()
    assert process.pool.executor is executor


def test_a_worker_that_was_forked_has_nothing_of_what_the_host_had(process, monkeypatch):
    get_shared_executor(3)
    process.serial = process.pool
    monkeypatch.setattr(context, "worker", SimpleNamespace(siblings=4))
    process.renew_after_fork()
    assert process.pool is not None, "it is no other process"
    process.owner = os.getpid() + 1
    process.renew_after_fork()
    assert (process.pool, process.serial, process.worker) == (None, None, context.worker)


def test_threads_ask_one_after_the_other(process):
    found = []
    with process.lock:
        thread = threading.Thread(target=lambda: found.append(get_shared_executor()))
        thread.start()
        thread.join(0.02)
        assert found == []
        inner = get_shared_executor()  # a signal handler may ask, too
    thread.join(8)
    assert found == [inner]


def test_nobody_owns_what_is_shared():
    class NotOwned(shared._NotOwned):
        """As both kinds are."""

        def __enter__(self):
            return self

    async def main():
        one = NotOwned()
        async with one as same:
            assert same is one
        with pytest.raises(KeyboardInterrupt):
            async with one:
                raise KeyboardInterrupt

    asyncio.run(main())
    with pytest.raises(LookupError), NotOwned():
        raise LookupError
    for kind in (shared.SharedExecutor, shared.SharedSerialExecutor):
        assert kind.__exit__ is shared._NotOwned.__exit__
        assert kind.__aexit__ is shared._NotOwned.__aexit__
        assert kind.__aenter__ is shared._NotOwned.__aenter__
