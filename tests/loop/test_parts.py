"""The parts of a pool, each by itself: no process, no channel, and of the pool only what the part asks for."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from pidfdpool import InheritedFutureError, PoolBroken, QueueFull, TaskTimeout
from pidfdpool.deaths import Cause
from pidfdpool.loop import dispatch, teardown
from pidfdpool.loop.backpressure import Admission, Waiter
from pidfdpool.loop.chunk_calls import Chunk, Terms
from pidfdpool.loop.death_reports import DeathReports
from pidfdpool.loop.dispatch import Dispatcher
from pidfdpool.loop.leader import Leadership
from pidfdpool.loop.outbox import Outbox
from pidfdpool.loop.outcomes import Outcome
from pidfdpool.loop.pool_thread import PoolThread
from pidfdpool.loop.resolutions import Resolver, is_quickly_rebuilt
from pidfdpool.loop.task import Task
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.machine import Machine
from pidfdpool.scheduler.policy import Policy
from pidfdpool.serialization import payload
from pidfdpool.transport import framing
from tests.conditions import open_descriptors


class Recipient:
    """Stands for a future: notes what it is told."""

    def __init__(self, *, wanted=True, callbacks=False):
        self.wanted, self.callbacks = wanted, callbacks
        self.told = []

    def _attach(self, pool, number, cancel_kills):
        self.pool = pool

    def _is_wanted(self):
        return self.wanted

    def _has_callbacks(self):
        return self.callbacks

    def _mark_cancelled(self):
        return self.wanted

    def _resolve(self, result, error):
        self.told.append(result if error is None else error)

    def _resolve_cancelled(self):
        self.told.append("cancelled")


def task(number=1, policy=None, **options):
    return Task(number, Recipient(**options), payload.dumps(None), "function", policy or Policy(1))


class Poller:
    among_greenlets = False

    def __init__(self):
        self.woken = 0
        self.leader = {}

    def wake(self):
        self.woken += 1


# ---- the outbox ----------------------------------------------------------------------------------------------


@pytest.fixture
def outbox():
    return Outbox(SimpleNamespace(poller=Poller(), closed=False))


def test_what_is_behind_a_resolution_that_raised_is_left_in_its_order(outbox):
    ran = []

    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        outbox.run([lambda: ran.append(1), fail, lambda: ran.append(2), lambda: ran.append(3)])
    assert (ran, len(outbox.left), outbox._pool.poller.woken) == ([1], 3, 1)
    outbox.left.popleft()
    outbox.run_left()
    assert (ran, len(outbox.left)) == ([1, 2, 3], 0)


def test_when_the_pool_is_closed_what_is_left_runs_at_once(outbox):
    ran = []
    outbox._pool.closed = True
    outbox.leave([lambda: 1 / 0, lambda: ran.append(1)])
    assert (ran, len(outbox.left), outbox._pool.poller.woken) == ([1], 0, 0)


def test_the_leader_leaves_callbacks_and_all_that_follows():
    outbox = Outbox(SimpleNamespace(poller=Poller(), closed=False))
    resolver = Resolver(DeathReports([], 5))
    futures = [task(1), task(2, callbacks=True), task(3)]
    for each in futures:
        resolver.tasks[each.number] = each
    deliveries = [resolver.failing(number, LookupError(number)) for number in (1, 2, 3)]
    outbox.leader = threading.get_ident()
    outbox.run(deliveries)
    assert [len(each.future.told) for each in futures] == [1, 0, 0]
    assert outbox.must_leave(futures[0].future), "nothing may overtake what is left"
    outbox.leader = None
    outbox.run_left()
    assert [len(each.future.told) for each in futures] == [1, 1, 1]


# ---- the resolver --------------------------------------------------------------------------------------------


@pytest.fixture
def resolver():
    return Resolver(DeathReports([], 5))


def act(resolver, action, context=None):
    return resolver.handlers[type(action)](action, context)


def test_a_task_is_undelivered_from_the_decision_until_its_future_is_resolved(resolver):
    resolver.tasks[7] = done = task(7)
    frame = framing.Frame(framing.RESULT, 0, 0, 7, payload.dumps("value"))
    resolution = act(resolver, do.Deliver(7), Outcome(frame))
    assert (resolver.tasks, resolver.undelivered, done.future.told) == ({}, {7: done}, [])
    resolution()
    resolution()
    assert (resolver.undelivered, done.future.told, resolver.finished) == ({}, ["value"], 1)


def test_each_end_of_a_task_is_told_and_counted(resolver):
    for number in (1, 2, 3):
        resolver.tasks[number] = task(number, Policy(1, timeout=5, deadline=5))
    tasks = dict(resolver.tasks)
    for action in (do.Cancel(1), do.Fail(2, Cause.TIMEOUT), do.FailBroken(3, "somebody said so")):
        act(resolver, action)()
    assert tasks[1].future.told == ["cancelled"]
    assert type(tasks[2].future.told[0]) is TaskTimeout
    assert type(tasks[3].future.told[0]) is PoolBroken
    assert "somebody said so" in str(tasks[3].future.told[0])
    assert (resolver.cancelled, resolver.failed, resolver.finished) == (1, 2, 0)


@pytest.mark.parametrize("ended", ["result", "none", "error", "cancelled"])
def test_a_future_whose_resolution_is_interrupted_is_found_by_whoever_resolves_it_next(resolver, ended):
    """Guards: it was out of `undelivered` by then, so after a Ctrl-C or in a forked child nobody ever resolved it."""
    resolver.tasks[7] = each = task(7)
    resolution = {
        "result": lambda: act(resolver, do.Deliver(7), Outcome(framing.Frame(1, 0, 0, 7, payload.dumps("value")))),
        "none": lambda: resolver._delivery(7, (7, 0, 0, payload.NONE)),
        "error": lambda: act(resolver, do.FailBroken(7, "somebody said so")),
        "cancelled": lambda: act(resolver, do.Cancel(7)),
    }[ended]()
    resolve, cancel = each.future._resolve, each.future._resolve_cancelled
    found = []

    def interrupt(*_):
        found.append(resolver.undelivered.get(7))
        raise KeyboardInterrupt

    each.future._resolve = each.future._resolve_cancelled = interrupt
    with pytest.raises(KeyboardInterrupt):
        resolution()
    assert found == [each]
    each.future._resolve, each.future._resolve_cancelled = resolve, cancel
    resolution()
    assert len(each.future.told) == 1
    assert resolver.undelivered == {}


# ---- admission -----------------------------------------------------------------------------------------------


class Pool:
    """As much of a pool as admission asks for."""

    def __init__(self, **options):
        self.machine = Machine(Policy(1, **options))
        self.tasks, self.undelivered, self.submitted = {}, {}, 0
        self.thread = SimpleNamespace(does_its_work=False)
        self.events = []

    def decide(self, event, context=None):
        self.events.append(event)
        return []

    def refusal(self):
        return RuntimeError("it is shut down")


@pytest.fixture
def pool():
    return Pool(max_pending=1)


@pytest.fixture
def admission(pool):
    admission = Admission(pool)
    admission.owner = "the pool"
    return admission


def test_a_task_waits_until_there_is_room_and_is_accepted_by_who_makes_it(pool, admission):
    policy = pool.machine.policy
    admission.accept(task(1, policy))
    waiter = Waiter(task(2, policy), blocks=True)
    assert admission.must_wait(waiter)
    assert waiter.gate.locked()
    assert admission.fill() == []
    assert pool.events == []
    del pool.tasks[1]
    admission.fill()
    assert [event.task for event in pool.events] == [2]
    assert (waiter.gate, admission.waiting, set(pool.tasks), pool.submitted) == (None, {}, {2}, 2)


def test_the_higher_priority_comes_first_and_who_is_not_wanted_is_passed_over(pool, admission):
    policy = pool.machine.policy
    admission.accept(task(1, policy))
    urgent = policy.refined({"priority": 5})
    for each in (task(2, policy, wanted=False), task(3, policy), task(4, urgent)):
        assert admission.must_wait(Waiter(each, blocks=False))
    pool.tasks.clear()
    assert admission.next().task == 4
    pool.tasks.clear()
    assert admission.next().task == 3, "the second is wanted by nobody"
    assert admission.waiting == {}


def test_who_may_not_wait_is_refused_and_who_makes_room_does_not_wait(pool, admission):
    policy = pool.machine.policy
    admission.accept(task(1, policy))
    with pytest.raises(QueueFull, match="1 tasks are pending and max_pending is 1"):
        admission.must_wait(Waiter(task(2, policy.refined({"block": False})), blocks=True))
    pool.thread.does_its_work = True
    assert not admission.must_wait(Waiter(task(3, policy), blocks=True))


def test_a_task_that_is_withdrawn_never_runs_and_all_are_refused_at_the_end(pool, admission):
    policy = pool.machine.policy
    admission.accept(task(1, policy))
    waiters = [Waiter(task(number, policy), blocks=number == 2) for number in (2, 3, 4)]
    for waiter in waiters:
        admission.must_wait(waiter)
    assert (admission.withdraw(4), admission.withdraw(4)) == (True, False)
    for resolution in admission.refuse():
        resolution()
    assert (str(waiters[0].error), waiters[0].task.future.told) == ("it is shut down", [])
    assert [str(error) for error in waiters[1].task.future.told] == ["it is shut down"]
    assert waiters[2].task.future.told == []


# ---- the thread, the leadership, the dispatcher ----------------------------------------------------------------


def test_whoever_asks_to_be_told_of_the_threads_end_is_told_once_before_and_after_it(outbox):
    thread, told = PoolThread(Poller(), outbox), []
    thread.tell_end(lambda: told.append("before"))
    assert told == []
    thread.note_end()
    assert (told, thread.is_over) == (["before"], True)
    thread.tell_end(lambda: told.append("after"))
    assert told == ["before", "after"]


def test_the_thread_runs_what_it_was_given_and_knows_itself(outbox):
    thread = PoolThread(Poller(), outbox)
    seen = []
    thread.run = lambda: seen.append((thread.is_current, thread.does_its_work))
    assert not thread.started
    thread.start()
    thread.start()
    thread.join()
    assert seen == [(True, True)]
    assert (thread.is_current, thread.does_its_work) == (False, False)
    outbox.leader = threading.get_ident()
    assert thread.does_its_work, "the leader does its work"
    outbox.leader = None


def test_nobody_leads_who_may_not_and_nobody_waits_for_itself(outbox):
    pool = SimpleNamespace(poller=Poller(), closed=False, may_lead=False, is_at_work_here=False)
    leadership = Leadership(pool, outbox, 0.0)
    future = SimpleNamespace(_leader=None, done=lambda: False, _has_callbacks=lambda: False)
    leadership.wait(future, None)
    pool.is_at_work_here = True
    leadership.wait(future, 1.0)
    with pytest.raises(RuntimeError, match="would never end"):
        leadership.wait(future, None)
    assert (pool.poller.leader, future._leader) == ({}, None)


def test_spawns_can_be_put_off_and_a_worker_that_is_gone_is_passed_over(resolver):
    poller = Poller()
    dispatcher = Dispatcher(Machine(Policy(1)), resolver, poller, SimpleNamespace(sizes={}), {})
    dispatcher.defers_spawns = True
    assert dispatcher.handlers[do.Spawn](do.Spawn(0, 1)) is None
    assert dispatcher.deferred_spawns == [do.Spawn(0, 1)]
    for action in (do.Stop(0, 1), do.Signal(0, 1, 9)):
        assert dispatcher.handlers[type(action)](action) is None
    assert dispatcher.workers == {}


def test_a_task_that_is_not_wanted_any_more_is_not_sent(resolver):
    declined = task(1)
    declined.future._begin = lambda: False
    resolver.tasks[1] = declined
    dispatcher = Dispatcher(Machine(Policy(1)), resolver, Poller(), SimpleNamespace(sizes={}), {0: object()})
    following = dispatcher.send(do.Send(0, 1, 1))
    assert (type(following), following.task) == (ev.SendSkipped, 1)
    assert (resolver.tasks, resolver.cancelled) == ({}, 1)


class Link:
    """The host's end of a worker, as far as it is sent tasks. `log` has what is done with it, in order."""

    name = 0, 1, 4711

    def __init__(self, error=None):
        self.log, self.error = [], error
        self.progress = SimpleNamespace(
            forget_begun=lambda: self.log.append("begun nothing"),
            put_tokens=lambda count: self.log.append(f"{count} token"),
        )

    def allow_calls(self, most):
        self.log.append(f"{most} calls")

    def post(self, pieces):
        self.log.append("sent")
        if self.error is not None:
            raise self.error


@pytest.fixture
def sent(resolver):
    """Give what sends task 1 to worker 0, whose link has to be given."""
    resolver.tasks[1] = each = task(1)
    each.future._begin, each.future._note_attempt = lambda: True, lambda *_: None

    def send(link, **options):
        workers = {0: link}
        return Dispatcher(Machine(Policy(1)), resolver, Poller(), SimpleNamespace(sizes={}), workers).send(
            do.Send(0, 1, 1, **options)
        )

    return send


def test_a_worker_has_its_token_and_its_limits_before_the_task(sent):
    link = Link()
    assert sent(link) is None
    assert link.log == ["1 token", "sent"]
    assert sent(limited := Link(), allowed=5) is None
    assert limited.log == ["5 calls", "1 token", "sent"]


def test_of_a_task_that_is_tried_again_the_worker_has_begun_nothing(sent):
    """Guards: it may have had the task before. If it died before it began, that counted as the task's death."""
    link = Link()
    sent(link, attempt=2)
    assert link.log == ["begun nothing", "1 token", "sent"]


def test_a_worker_that_is_gone_refuses_the_task_and_what_a_handler_raises_goes_on(sent, resolver):
    following = sent(Link(BrokenPipeError()))
    assert (type(following), following.task) == (ev.SendRefused, 1)
    assert 1 in resolver.tasks
    with pytest.raises(TimeoutError):
        sent(Link(TimeoutError("by a signal handler")))


@pytest.mark.parametrize("refused", ["channels", "tokens"])
def test_a_worker_that_lacks_a_descriptor_is_not_asked_for_and_leaves_none_open(resolver, monkeypatch, refused):
    def refuse():
        raise OSError("none left")

    before = open_descriptors()
    monkeypatch.setattr(getattr(dispatch, refused), "pair", refuse)
    dispatcher = Dispatcher(Machine(Policy(1)), resolver, Poller(), SimpleNamespace(sizes={}), {})
    dispatcher.template = object()
    following = dispatcher.handlers[do.Spawn](do.Spawn(0, 1))
    assert (type(following), following.slot, following.generation) == (ev.SpawnFailed, 0, 1)
    assert "none left" in following.reason
    assert dispatcher.workers == {}
    assert open_descriptors() == before


def test_in_a_forked_child_every_task_fails_that_has_no_outcome_or_whose_outcome_is_not_told_yet():
    tasks = [task(number) for number in (1, 2, 3)]
    for each in tasks:
        each.future._fail_in_forked_child = each.future.told.append
    nothing = SimpleNamespace(abandon_in_forked_child=lambda: None, close_in_forked_child=lambda: None)
    core = SimpleNamespace(
        outbox=nothing, leases=nothing, logs=nothing, poller=nothing, workers={}, template=None,
        admission=SimpleNamespace(abandon_in_forked_child=lambda: {3: tasks[2]}),
        tasks={1: tasks[0]}, undelivered={2: tasks[1]},
    )  # fmt: skip
    teardown.abandon_in_forked_child(core)
    assert [[type(error) for error in each.future.told] for each in tasks] == [[InheritedFutureError]] * 3
    assert core.closed


def test_when_the_pools_own_code_fails_every_future_is_told_and_who_waits_for_workers_is_woken(resolver):
    log, error = [], ZeroDivisionError("a slip")
    tasks = {number: task(number) for number in (1, 2)}
    resolver.tasks.update(tasks)

    def fail_to_signal(_number):
        raise OSError

    core = SimpleNamespace(
        lock=threading.RLock(), resolver=resolver, tasks=resolver.tasks, closed=False,
        machine=SimpleNamespace(give_up=log.append),
        admission=SimpleNamespace(refuse=lambda: ["refused"]),
        readiness=SimpleNamespace(notify_all=lambda: log.append("woken")),
        workers={0: SimpleNamespace(signal=fail_to_signal), 1: SimpleNamespace(signal=log.append)},
        outbox=SimpleNamespace(leave=log.append),
    )  # fmt: skip
    teardown.fail_everything(core, error)
    assert core.closed
    assert "a slip" in log[0]
    assert log[1:3] == ["woken", 9]
    *failing, refused = log[3]
    assert refused == "refused"
    for resolution in failing:
        resolution()
    errors = [each.future.told[0] for each in tasks.values()]
    assert [type(each) for each in errors] == [PoolBroken] * 2
    assert errors[0] is not errors[1]
    assert [each.__cause__ for each in errors] == [error] * 2
    teardown.fail_everything(core, KeyError())
    assert resolver.cause is error, "the first one is the cause"


def test_errors_of_a_broken_pool_share_the_deaths_that_they_tell_of(resolver):
    assert resolver.broken_error("a reason").__cause__ is None
    deaths = [SimpleNamespace(as_seen=lambda: "died") for _ in range(2)]
    resolver.deaths.recent.append(deaths[0])
    first, second = resolver.broken_error("a reason"), resolver.broken_error("a reason")
    assert first is not second
    assert first.__cause__ is second.__cause__ is not None
    assert first.deaths == (deaths[0],)
    resolver.deaths.recent.append(deaths[1])
    third = resolver.broken_error("a reason")
    assert third.deaths == tuple(deaths)
    assert third.__cause__ is not first.__cause__


def test_waiting_room_numbers_of_those_that_wait_no_longer_are_not_kept_for_ever(pool, admission):
    policy = pool.machine.policy
    admission.accept(task(1, policy))
    for number in range(2, 1000):
        admission.must_wait(Waiter(task(number, policy), blocks=False))
    for number in range(2, 999):
        admission.withdraw(number)
    assert len(admission._order) < 200
    pool.tasks.clear()
    assert admission.next().task == 999


@pytest.mark.parametrize("most", [None, 2])
def test_so_many_are_refused_at_a_time_and_none_that_was_accepted_meanwhile(pool, admission, most):
    policy = pool.machine.policy
    admission.accept(task(1, policy))
    waiters = [Waiter(task(number, policy), blocks=False) for number in range(2, 6)]
    for waiter in waiters:
        admission.must_wait(waiter)
    pool.tasks[2] = waiters[0].task  # a handler has interrupted the thread that accepted it
    told = admission.refuse(most)
    assert [delivery.task.number for delivery in told] == ([3, 4, 5] if most is None else [3])
    assert 2 in admission.waiting


def test_in_a_forked_child_those_that_wait_for_room_go_on_with_an_error(pool, admission):
    policy = pool.machine.policy
    admission.accept(task(1, policy))
    waiter = Waiter(task(2, policy), blocks=True)
    admission.must_wait(waiter)
    assert admission.abandon_in_forked_child() == {2: waiter.task}
    with pytest.raises(InheritedFutureError):
        admission.wait(waiter)
    assert admission.waiting == {}


def test_a_chunk_goes_on_with_the_attempts_that_its_call_has_had(pool, admission):
    policy = pool.machine.policy
    deaths = (SimpleNamespace(attempt=1),)
    chunk = Chunk(print, "work", 0, range(1), starred=False, terms=Terms(5.0, 2, deaths, True))
    each = Task(1, Recipient(), payload.dumps(None), chunk, policy)
    began = []
    each.future._begin = lambda: began.append(1)
    assert admission.accept(each) == ev.Submitted(1, None, False, 0, 5.0, 2, 1, True)
    assert (each.attempt, each.deaths, each.begun, began) == (2, deaths, True, [1])
    fresh = Task(2, Recipient(), payload.dumps(None), Chunk(print, "work", 0, range(3), terms=Terms()), policy)
    own = policy.refined({"priority": 5})
    assert admission.accept(fresh) == ev.Submitted(2, None, False, 3)
    assert admission.accept(task(3, own)) == ev.Submitted(3, own, False)
    assert (pool.submitted, set(pool.tasks)) == (3, {1, 2, 3})


# ---- what the outbox does beside the leader --------------------------------------------------------------------


def test_the_leader_leaves_reports_too_and_an_event_loop_what_is_slow(outbox):
    resolver = Resolver(DeathReports([], 5))
    ran = []
    outbox.leader = threading.get_ident()
    outbox.run([lambda: ran.append("a report")])
    assert (ran, len(outbox.left)) == ([], 1)
    outbox.left.clear()
    for number, value in ((1, 5), (2, "x" * 10_000)):
        resolver.tasks[number] = task(number)
        outcome = Outcome(framing.Frame(framing.RESULT, 0, 0, number, payload.dumps(value)))
        delivery = act(resolver, do.Deliver(number), outcome)
        for in_loop in (False, True):
            outbox.in_loop = in_loop
            assert outbox.must_leave(delivery.task) is (in_loop and number == 2)
    outbox.in_loop = False
    outbox.left.append(lambda: None)
    assert outbox.must_leave(delivery.task), "nothing may overtake what is left"


def test_in_a_forked_child_nothing_is_left(outbox):
    outbox.left.append(lambda: 1 / 0)
    outbox.leader, outbox.in_loop = threading.get_ident(), True
    outbox.abandon_in_forked_child()
    assert (list(outbox.left), outbox.in_leader, outbox.in_loop) == ([], False, False)
    outbox.finish()


@pytest.mark.parametrize(
    ("verdict", "quick"),
    [
        (None, True),
        (KeyError(), True),
        ((1, 0, 0, payload.dumps(5)[0]), True),
        ((1, 0, 0, payload.dumps("x" * 5000)[0]), False),
        ((1, 0, 0, payload.dumps(KeyError)[0]), False),
        (framing.Frame(framing.RESULT, 0, 0, 1, payload.dumps({"a": [1]})), True),
        (framing.Frame(framing.RESULT, 0, 0, 1, [b"\x80\x05N.", b"more"]), False),
        (framing.Frame(framing.ERROR, 0, 0, 1, payload.dump_error(KeyError(), None)), False),
    ],
    ids=["cancelled", "own error", "plain", "large", "by name", "made", "two buffers", "error"],
)
def test_what_is_plain_and_small_is_quickly_rebuilt(verdict, quick):
    assert is_quickly_rebuilt(verdict) is quick
