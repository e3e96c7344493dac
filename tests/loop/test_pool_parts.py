"""What a pool does for its executor and its futures, with a real machine: no template comes up here."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from pidfdpool import QueueFull
from pidfdpool.loop.pool import Pool
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.policy import Policy
from pidfdpool.scheduler.states import Phase
from pidfdpool.serialization import payload
from pidfdpool.template.recipe import Recipe
from tests.conditions import eventually
from tests.loop.test_parts import Recipient


class Future(Recipient):
    """Stands for a future: waits until it is marked or begun."""

    def __init__(self):
        super().__init__()
        self.attached, self.marked = [], False

    def _attach(self, pool, number, cancel_kills):
        self.pool, self.number = pool, number
        self.attached.append((number, cancel_kills))

    def _mark_cancelled(self):
        self.marked = True
        return True

    def _is_observed(self):
        return False

    def _begin(self):
        return True


class Thread:
    """Stands for the pool thread, which does nothing here."""

    started, failure, does_its_work, is_current = True, None, False, False

    def start(self):
        pass

    def join(self):
        pass


def made(**options):
    policy = Policy(1, **options)
    pool = Pool(policy, Recipe(way="exec", preload=(), preload_call=None, initializer=None), [], 1)
    pool.core.thread = Thread()
    return pool


@pytest.fixture
def pool():
    pool = made()
    yield pool
    pool.leases.close()
    pool.core.poller.close()


@pytest.fixture
def limited():
    pool = made(max_pending=1)
    yield pool
    pool.leases.close()
    pool.core.poller.close()


def submit(pool, policy=None, **options):
    future = Future()
    pool.submit(future, payload.dumps(None), "function", policy or pool._policy, None, **{"wait": True} | options)
    return future


def deferred(pool):
    return [type(event) for event in pool.core._deferred]


def test_tasks_have_numbers_of_their_own_and_are_counted(pool):
    futures = [submit(pool) for _ in range(3)]
    assert [future.attached for future in futures] == [[(number, False)] for number in (1, 2, 3)]
    assert all(future.pool is pool for future in futures)
    assert (pool.core.submitted, set(pool.core.tasks)) == (3, {1, 2, 3})
    assert pool.core.template_wanted, "by the first"


def test_a_task_with_rules_of_its_own_is_accepted_with_these(pool):
    own = pool._policy.refined({"priority": 5, "cancel_kills": True})
    future = submit(pool, own)
    assert future.attached == [(1, True)]
    assert pool.core.tasks[1].policy is own


def test_a_call_that_needs_the_script_has_it_run(pool):
    asked = []
    pool.core.want_script = lambda: asked.append(1) or setattr(pool.recipe, "runs_script", True)
    for _ in range(2):
        pool.submit(
            Future(), [payload.dumps(None)[0] + bytes([payload.NEEDS_SCRIPT])], "f", pool._policy, None, wait=True
        )
    assert asked == [1]


@pytest.mark.parametrize("count", [1, 3])
def test_whatever_waits_can_be_cancelled_once_and_its_future_is_told(pool, count):
    futures = [submit(pool) for _ in range(count)]
    for future in futures:
        assert pool.cancel(future.number, future)
        assert future.told == ["cancelled"]
        assert not pool.cancel(future.number, future)
    assert (pool.core.tasks, pool.core.undelivered, pool.core.resolver.cancelled) == ({}, {}, count)


def test_a_cancelled_task_is_told_by_who_cancels_it_unless_that_is_interrupted(pool):
    futures = [submit(pool) for _ in range(3)]

    def interrupt():
        raise KeyboardInterrupt

    resolve, futures[0]._resolve_cancelled = futures[0]._resolve_cancelled, interrupt
    with pytest.raises(KeyboardInterrupt):
        pool.cancel(futures[0].number, futures[0])
    futures[0]._resolve_cancelled = resolve
    pool.core.outbox.run_left()
    assert futures[0].told == ["cancelled"]


def test_a_cancel_by_who_has_interrupted_a_decision_is_decided_later(pool):
    future = submit(pool)
    with pool.core.lock:
        assert pool.cancel(future.number, future)
        assert future.told == []
    assert future.marked
    assert deferred(pool) == [ev.Cancelled]
    pool.core.catch_up()
    assert future.told == ["cancelled"]


def test_a_submit_by_who_has_interrupted_a_decision_is_decided_later(pool):
    with pool.core.lock:
        future = submit(pool)
    assert future.attached
    assert 1 in pool.core.tasks
    assert deferred(pool) == [ev.Submitted]


def test_a_task_that_is_killed_before_it_begins_never_runs(pool):
    future = submit(pool)
    pool.kill_task(future.number)
    assert len(future.told) == 1
    assert pool.core.tasks == {}


def test_a_pool_that_is_shut_down_accepts_nothing_but_what_follows_from_accepted_tasks(pool):
    from pidfdpool.loop.chunk_calls import Chunk, Terms

    submit(pool)
    pool.shutdown(cancel=False)
    assert pool.machine.phase is Phase.DRAINING
    with pytest.raises(RuntimeError, match="after shutdown"):
        submit(pool)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.check_open()
    rest, follows = Future(), Chunk(print, "work", 0, range(2), starred=False, terms=Terms(follows=True))
    pool.submit(rest, payload.dumps(None), follows, pool._policy, None, wait=True)
    assert len(pool.core.tasks) == 2


def test_a_pool_that_is_held_does_not_end_before_it_is_let_go_of(pool):
    holder = object()
    pool.hold(holder)
    pool.shutdown(cancel=False)
    phase = pool.machine.phase
    assert phase is Phase.DRAINING
    pool.let_go(holder)
    pool.let_go(holder)
    assert pool.machine.phase is not phase


def test_to_let_go_of_a_pool_that_is_open_decides_nothing(pool):
    handled = []
    pool.core.handle = lambda event, context=None: handled.append(event)
    pool.hold("holder")
    pool.let_go("holder")
    assert (handled, pool.machine.state.holds) == ([], set())
    pool.machine.state.phase = Phase.DRAINING
    pool.let_go("holder")
    assert handled == [ev.Tick(read_until=0.0)]


def test_a_shutdown_that_cancels_and_a_kill_tell_every_future(pool):
    for end in (lambda: pool.shutdown(cancel=True), lambda: pool.kill(9)):
        futures = [submit(pool) for _ in range(2)] if pool.machine.phase is Phase.OPEN else []
        end()
        assert [future.told for future in futures] == [["cancelled"]] * len(futures)
    assert pool.core.tasks == {}


def test_a_stopped_template_is_resumed_when_the_pool_is_to_end(pool):
    resumed = []
    pool.core.resume_template = lambda: resumed.append(1)
    pool.shutdown(cancel=False)
    pool.kill(9)
    assert resumed == [1, 1]


# ---- room --------------------------------------------------------------------------------------------------------


def test_who_finds_no_room_is_refused_or_waits_until_one_has_been_cancelled(limited):
    first = submit(limited)
    with pytest.raises(QueueFull):
        submit(limited, limited._policy.refined({"block": False}))
    second = submit(limited, wait=False)
    assert list(limited.core.admission.waiting) == [second.number]
    assert limited.cancel(first.number, first)
    assert (limited.core.admission.waiting, set(limited.core.tasks)) == ({}, {second.number})


def test_one_that_waits_for_room_is_withdrawn(limited):
    submit(limited)
    second = submit(limited, wait=False)
    assert limited.cancel(second.number, second)
    assert limited.core.admission.waiting == {}
    third = submit(limited, wait=False)
    with limited.core.lock:
        assert limited.cancel(third.number, third)
    assert deferred(limited) == [ev.Cancelled]


def test_a_wait_for_room_that_is_interrupted_leaves_no_task(limited):
    submit(limited)

    def interrupt(_waiter):
        raise KeyboardInterrupt

    limited.core.admission.wait = interrupt
    with pytest.raises(KeyboardInterrupt):
        submit(limited)
    assert (limited.core.admission.waiting, set(limited.core.tasks)) == ({}, {1})


def test_a_thread_that_waits_for_room_goes_on_when_there_is_some(limited):
    first, got = submit(limited), []
    thread = threading.Thread(target=lambda: got.append(submit(limited)))
    thread.start()
    eventually(lambda: limited.core.admission.waiting, "it waits for room")
    assert limited.cancel(first.number, first)
    thread.join(20)
    assert len(got) == 1
    assert set(limited.core.tasks) == {got[0].number}


# ---- owners and ends ---------------------------------------------------------------------------------------------


class Owner:
    """Stands for an executor."""


def test_an_owner_that_is_gone_is_noted_and_what_it_has_left_is_submitted_once(pool):
    finished, owner = [], Owner()
    unsubmitted = SimpleNamespace(finish=lambda cancel: finished.append(cancel))
    pool.submit_for_lost_owner()
    pool.shut_down_with(owner, unsubmitted)
    pool.submit_for_lost_owner()
    assert finished == []
    del owner
    assert pool._loop.owner_lost
    assert pool.core.poller._epoll.poll(0), "its thread is woken"
    pool.submit_for_lost_owner()
    assert finished == [False]


def test_nobody_waits_for_a_pool_that_he_has_interrupted(pool):
    joined = []
    pool.starter.wait_for_first = lambda: joined.append("start")
    pool.core.thread = SimpleNamespace(join=lambda: joined.append("thread"))
    pool.core.watchdog.release = lambda: joined.append("release")
    with pool.core.lock:
        pool.join()
    assert joined == []
    pool.join()
    assert joined == ["start", "thread", "release"]


def test_where_answers_lie_who_observes_or_has_to_wait_is_noted(pool):
    noted = []
    pool.core.watchdog = SimpleNamespace(note_observer=lambda: noted.append("observer"))
    pool.note_observer()
    submit(pool)
    assert noted == []
    pool.core.poller.guarded = True
    pool.note_observer()
    submit(pool)
    assert noted == ["observer"] * 2
