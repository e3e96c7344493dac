"""The end of a pool: what is closed, what is told, and what a forked child lets go of."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from pidfdpool import InheritedFutureError, PoolBroken
from pidfdpool.loop import teardown
from pidfdpool.loop.death_reports import DeathReports
from pidfdpool.loop.resolutions import Resolver
from tests.loop.test_parts import task


class Part:
    """Notes which of its methods are called, and by what name. `failing`: that one raises."""

    def __init__(self, log, name, failing=()):
        self._log, self._name, self._failing = log, name, failing

    def __getattr__(self, method):
        if method.startswith("__"):
            raise AttributeError(method)

        def note(*given):
            self._log.append((self._name, method, *given))
            if method in self._failing:
                raise OSError("it is closed already")

        return note


@pytest.fixture
def log():
    return []


@pytest.fixture
def core(log):
    template = Part(log, "template")
    return SimpleNamespace(
        lock=threading.RLock(), readiness=None, closed=False, abandoned=False, tasks={}, undelivered={},
        workers={0: Part(log, "worker 0"), 1: Part(log, "worker 1")}, template=template,
        dispatcher=SimpleNamespace(template=template), logs=Part(log, "logs"),
        admission=SimpleNamespace(abandon_in_forked_child=dict, refuse=list),
        **{name: Part(log, name) for name in ("outbox", "leases", "poller", "leadership")},
    )  # fmt: skip


def test_at_the_end_each_worker_the_template_and_what_is_the_pools_own_is_closed(core, log):
    teardown.close_everything(core)
    assert sorted(log) == [(name, "close") for name in ("leadership", "leases", "template", "worker 0", "worker 1")]
    assert log[-1] == ("leadership", "close"), "the poller is closed when nothing is watched any more"
    assert (core.workers, core.dispatcher.template) == ({}, None)


def test_a_pool_without_a_template_is_closed_as_well(core, log):
    core.template = core.dispatcher.template = None
    teardown.close_everything(core)
    assert ("leadership", "close") in log
    assert ("template", "close") not in log


LET_GO = [("outbox", "abandon_in_forked_child"), ("leases", "abandon_in_forked_child"),
          ("poller", "close_in_forked_child")]  # fmt: skip
COPIES = [(name, "close_in_forked_child") for name in ("worker 0", "worker 1", "template")]


@pytest.mark.parametrize("logs", [False, True])
def test_a_forked_child_lets_go_of_all_copies_and_unregisters_nothing(core, log, logs):
    if not logs:
        core.logs = None
    teardown.abandon_in_forked_child(core)
    assert sorted(log) == sorted(LET_GO + COPIES + [("logs", "abandon_in_forked_child")] * logs)
    assert (core.closed, core.abandoned) == (True, True)


def test_a_forked_child_does_not_wait_for_a_lock_that_was_copied_while_it_was_held(core):
    copied, held, over = core.lock, threading.Event(), threading.Event()

    def hold():
        with copied:
            held.set()
            over.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(20)
    teardown.abandon_in_forked_child(core)
    assert core.lock is not copied
    assert core.lock.acquire(blocking=False)
    core.readiness.notify_all()  # it belongs to the new lock, which this thread has
    core.lock.release()
    over.set()
    thread.join()


def test_what_was_half_closed_when_the_fork_came_does_not_keep_the_rest_open(core, log):
    core.workers[0] = Part(log, "worker 0", ["close_in_forked_child"])
    core.template = None
    teardown.abandon_in_forked_child(core)
    assert ("worker 1", "close_in_forked_child") in log


def test_each_future_of_a_forked_child_gets_an_error_of_its_own(core):
    tasks = [task(number) for number in range(3)]
    for each in tasks:
        each.future._fail_in_forked_child = each.future.told.append
    core.tasks, core.undelivered = {0: tasks[0]}, {1: tasks[1]}
    core.admission.abandon_in_forked_child = lambda: {2: tasks[2]}
    teardown.abandon_in_forked_child(core)
    told = [each.future.told for each in tasks]
    assert [[type(error) for error in errors] for errors in told] == [[InheritedFutureError]] * 3
    assert len({id(errors[0]) for errors in told}) == 3
    assert set(core.tasks) == {0, 2}, "of which the child's own copy of the pool tells"


@pytest.mark.parametrize("told_before", [None, LookupError("the initializer")])
def test_when_the_pools_own_code_fails_nothing_is_told_while_the_lock_is_held(core, log, told_before):
    resolver = Resolver(DeathReports([], 5))
    resolver.tasks.update({number: task(number) for number in (1, 2)})
    resolver.cause, futures = told_before, [each.future for each in resolver.tasks.values()]
    seen, error = [], ZeroDivisionError("why")
    core.resolver, core.tasks = resolver, resolver.tasks
    core.machine, core.readiness = Part(log, "machine"), Part(log, "readiness")
    core.workers[0] = Part(log, "worker 0", ["signal"])
    core.admission.refuse = lambda: seen.append(core.closed) or []
    core.outbox = SimpleNamespace(leave=lambda all_: seen.append((core.lock._is_owned(), len(all_))) or run(all_))

    def run(resolutions):
        for resolution in resolutions:
            resolution()

    teardown.fail_everything(core, error)
    assert seen == [True, (False, 2)]
    reason = "the pool's own machinery failed: ZeroDivisionError('why')"
    assert log[:2] == [("machine", "give_up", reason), ("readiness", "notify_all")]
    assert log[2:] == [("worker 0", "signal", 9), ("worker 1", "signal", 9)]
    for future in futures:
        [failed] = future.told
        assert type(failed) is PoolBroken
        assert str(failed).endswith(reason)
        assert failed.__cause__ is (told_before or error)
    assert resolver.undelivered == {}
