"""The ways into a pool: the short ones and the long one, and what is noted on each. No template comes up here."""

from __future__ import annotations

import signal
import time
from types import SimpleNamespace

import pytest

from pidfdpool import QueueFull
from pidfdpool.loop.chunk_calls import Chunk, Terms
from pidfdpool.process import interruptible
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.serialization import payload
from tests.loop.test_pool_parts import Future, made, submit


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


class Large(list):
    last_byte = 46


def events_of(pool):
    """Have the events that are decided noted, without their consequences."""
    decided = []
    pool.core.decide = lambda event, context=None: decided.append(event) or []
    return decided


def short_way(pool, *, enqueues=True, slot=None):
    """Have the machine accept tasks in this way; return what it is asked."""
    asked = []
    pool.machine.enqueue = lambda *given: asked.append(("enqueue", *given)) or enqueues
    pool.machine.hand_over = lambda *given: asked.append(("hand over", *given)) or slot
    return asked


@pytest.fixture
def at_a_prompt(monkeypatch):
    """Have handlers be able to raise in this thread, which leaves decisions to the pool thread then."""
    monkeypatch.setattr(interruptible, "handlers_may_raise", lambda: True)
    monkeypatch.setattr(interruptible, "handlers_may_raise_here", lambda: True)


# ---- the parts ---------------------------------------------------------------------------------------------------


def test_all_parts_of_a_pool_are_of_this_pool(pool):
    core = pool.core
    assert core.admission.owner is pool
    assert pool.machine is core.machine
    assert pool.leases is core.leases
    assert pool.leadership is core.leadership
    assert pool.recipe is core.recipe
    assert core.dispatcher.on_channel.__self__ is core.dispatcher.on_answers.__self__
    assert core.dispatcher.on_channel.__name__ == "on_channel"
    assert core.dispatcher.on_answers.__name__ != "on_channel"
    assert (core.poller.stands_back, core.poller.read_in_loop) == (
        core.watchdog.stands_back, core.leadership.read_in_loop
    )  # fmt: skip


# ---- the short ways in -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heavy", [False, True])
def test_one_that_has_to_wait_is_noted_and_nothing_is_decided(pool, heavy):
    asked, decided = short_way(pool), events_of(pool)
    future, buffers = Future(), Large(payload.dumps(None)) if heavy else payload.dumps(None)
    pool.submit(future, buffers, "work", pool._policy, "held", wait=True)
    assert asked == [("enqueue", 1, heavy)]
    task = pool.core.tasks[1]
    assert (task.future, task.buffers, task.what, task.policy, task.held) == (
        future, buffers, "work", pool._policy, "held"
    )  # fmt: skip
    assert not hasattr(task, "queued_at"), "nobody would ask for it"
    assert (future.pool, future.attached, pool.core.submitted) == (pool, [(1, False)], 1)
    assert decided == []


def test_when_it_was_accepted_is_kept_while_somebody_observes(pool):
    """Guards: to keep it for all would cost 3 % of a submit."""
    pool.core.resolver.observation = SimpleNamespace()
    short_way(pool)
    before = time.monotonic()
    submit(pool)
    assert before <= pool.core.tasks[1].queued_at <= time.monotonic()


@pytest.mark.parametrize("refused", [False, True])
def test_an_idle_worker_is_sent_a_task_at_once_and_what_follows_is_decided(pool, refused):
    asked = short_way(pool, enqueues=False, slot=SimpleNamespace(index=3, generation=7))
    decided, sent = events_of(pool), []
    failed = ev.SendRefused(3, 7, 1)
    pool.core.dispatcher.send = lambda action: (
        sent.append((action, dict(pool.core.tasks))) or (failed if refused else None)
    )
    future = submit(pool)
    assert [way for way, *_ in asked] == ["enqueue", "hand over"]
    (_, number, heavy), (_, *handed) = asked
    assert handed == [number, handed[1], heavy], "of the same task"
    assert sent == [(do.Send(3, 7, 1), {1: pool.core.tasks[1]})]
    assert decided == [failed] * refused
    assert future.attached == [(1, False)]


def test_what_follows_is_run_without_the_lock(pool):
    short_way(pool, enqueues=False, slot=SimpleNamespace(index=3, generation=7))
    pool.core.dispatcher.send = lambda action: ev.SendRefused(3, 7, 1)
    held = []
    pool.core.decide = lambda event, context=None: [lambda: held.append(pool.core.lock._is_owned())]
    submit(pool)
    assert held == [False]


def test_where_there_is_no_short_way_the_task_is_decided_about_once(pool):
    short_way(pool, enqueues=False)
    decided = events_of(pool)
    submit(pool)
    assert decided == [ev.Submitted(1, None, False)]
    assert pool.core.submitted == 1


@pytest.mark.parametrize("why", ["own policy", "terms", "prompt", "reentered"])
def test_what_the_short_way_knows_nothing_of_goes_the_long_way(pool, why, request):
    asked = short_way(pool)
    policy, what = pool._policy, "work"
    if why == "own policy":
        policy = policy.refined({"priority": 1})
    elif why == "terms":
        what = Chunk(print, "work", 0, range(2), starred=False, terms=Terms())
    elif why == "prompt":
        request.getfixturevalue("at_a_prompt")
    else:
        pool.core.lock.acquire()
    pool.submit(Future(), payload.dumps(None), what, policy, None, wait=True)
    if why == "reentered":
        pool.core.lock.release()
    assert asked == []
    assert set(pool.core.tasks) == {1}
    assert bool(pool.core._deferred) is (why in ("prompt", "reentered"))


def test_a_chunk_that_is_one_task_goes_the_short_way(pool):
    asked = short_way(pool)
    pool.submit(Future(), payload.dumps(None), Chunk(print, "work", 0, range(2)), pool._policy, None, wait=True)
    assert len(asked) == 1


def test_where_tasks_wait_for_room_nobody_overtakes_them(limited):
    asked = short_way(limited)
    submit(limited)
    assert asked == []


@pytest.mark.parametrize("end", ["enqueue", "decide"])
def test_a_submit_that_is_interrupted_in_the_middle_breaks_the_pool(pool, end):
    """Nothing that it was about to note can be relied on."""

    def interrupt(*_):
        raise KeyboardInterrupt

    failed = []
    pool.core.fail = failed.append
    if end == "enqueue":
        pool.machine.enqueue = interrupt
    else:
        short_way(pool, enqueues=False, slot=SimpleNamespace(index=3, generation=7))
        pool.core.dispatcher.send = interrupt
    with pytest.raises(KeyboardInterrupt):
        submit(pool)
    assert [type(error) for error in failed] == [KeyboardInterrupt]
    assert not pool.core.lock._is_owned()


@pytest.mark.parametrize(("guarded", "slot", "noted"), [(True, None, [5]), (False, None, []), (True, "idle", [])])
def test_where_answers_lie_it_is_noted_how_many_wait_for_workers(pool, guarded, slot, noted):
    """One that is sent at once waits for none."""
    short_way(pool, enqueues=slot is None, slot=slot and SimpleNamespace(index=3, generation=7))
    pool.core.dispatcher.send = lambda action: None
    pool.machine.queue = [None] * 5
    told, pool.core.poller.guarded = [], guarded
    pool.core.watchdog = SimpleNamespace(note_waiting=told.append)
    submit(pool)
    assert told == noted


# ---- the long way ------------------------------------------------------------------------------------------------


def test_the_first_submit_starts_the_pool_with_its_signals_blocked_and_only_if_it_is_to(pool):
    started, claims = [], iter([True, False])
    pool.core.thread.started = False
    pool.starter.claim_first = lambda: next(claims)
    pool.starter.start_first = lambda number, mask: started.append((number, mask, signals()))

    def signals():
        return signal.pthread_sigmask(signal.SIG_BLOCK, ())

    before = signals()
    first = submit(pool)
    pool.machine.enqueue = lambda *_: False
    submit(pool)
    [(number, mask, blocked)] = started
    assert (number, mask) == (first.number, before)
    assert len(blocked) > len(before) + 20
    assert signals() == before
    pool.core.thread.started = True
    pool.starter.claim_first = lambda: pytest.fail("it is started")
    submit(pool)


def test_who_finds_the_pool_shut_down_leaves_nothing_in_it(pool):
    pool.shutdown(cancel=False)
    future = Future()
    rest = Chunk(print, "work", 0, range(2), starred=False, terms=Terms(follows=False))
    for what in ("work", rest):
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.submit(future, payload.dumps(None), what, pool._policy, None, wait=True)
    assert (pool.core.tasks, pool.core.submitted, future.attached) == ({}, 0, [])


def test_what_follows_from_accepted_tasks_is_refused_by_a_pool_that_closes(pool):
    follows = Chunk(print, "work", 0, range(2), starred=False, terms=Terms(follows=True))
    pool.kill(9)
    with pytest.raises(RuntimeError):
        pool.submit(Future(), payload.dumps(None), follows, pool._policy, None, wait=True)


@pytest.mark.parametrize(("guarded", "waiting", "noted"), [(True, True, 1), (True, False, 0), (False, True, 0)])
def test_where_answers_lie_one_that_waits_is_noted_when_it_is_accepted(pool, guarded, waiting, noted):
    told = []
    pool.core.poller.guarded = guarded
    pool.core.watchdog = SimpleNamespace(note_observer=lambda: told.append(pool.core.lock._is_owned()))
    events_of(pool)
    if waiting:
        pool.machine.queue = [None]
    pool.machine.enqueue, pool.machine.hand_over = lambda *_: False, lambda *_: None
    submit(pool)
    assert told == [False] * noted


def test_what_interrupts_a_decision_waits_for_no_room_and_is_decided_later(limited):
    """A signal handler that waited would wait for the thread that it has interrupted."""
    submit(limited)
    with limited.core.lock:
        future = submit(limited)
    assert limited.core.admission.waiting == {}
    assert set(limited.core.tasks) == {1, future.number}
    assert [type(event) for event in limited.core._deferred] == [ev.Submitted]


def test_only_a_task_that_had_to_wait_is_withdrawn_when_its_submit_fails(limited):
    handled = []
    submit(limited)
    limited.core.handle = lambda event, context=None: handled.append(event)
    with pytest.raises(QueueFull):
        submit(limited, limited._policy.refined({"block": False}))
    assert handled == []

    def interrupt(_waiter):
        raise KeyboardInterrupt

    limited.core.admission.wait = interrupt
    with pytest.raises(KeyboardInterrupt):
        submit(limited)
    assert handled == [ev.Cancelled(3)]


def test_only_who_says_so_waits_for_room(limited):
    waited = []
    limited.core.admission.wait = lambda waiter: waited.append((waiter.task.number, waiter.blocks))
    submit(limited, wait=True)
    submit(limited, wait=True)
    submit(limited, wait=False)
    assert waited == [(1, True), (2, True)]
    assert [waiter.blocks for waiter in limited.core.admission.waiting.values()] == [True, False]


@pytest.mark.parametrize(("runs", "needs", "asked"), [(False, True, 1), (True, True, 0), (False, False, 0)])
def test_the_script_is_asked_for_by_the_first_call_that_needs_it(pool, runs, needs, asked):
    wanted = []
    pool.core.want_script = lambda: wanted.append(1)
    pool.recipe.runs_script = runs
    data = payload.dumps(None)[0] + bytes([payload.NEEDS_SCRIPT] if needs else b"")
    pool.submit(Future(), [data], "f", pool._policy, None, wait=True)
    assert len(wanted) == asked
