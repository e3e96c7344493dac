"""Who waits for room: what is noted of a task that waits, in which order they come, and how a wait ends."""

from __future__ import annotations

import time
from contextlib import nullcontext

import pytest

from pidfdpool import InheritedFutureError, QueueFull
from pidfdpool.loop.backpressure import SLICE, Admission, Waiter
from pidfdpool.loop.chunk_calls import Chunk, Terms
from pidfdpool.loop.task import Task
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.policy import Policy
from pidfdpool.scheduler.states import Phase
from pidfdpool.serialization import payload
from tests.loop.test_parts import Pool, Recipient


class Future(Recipient):
    def __init__(self, **options):
        super().__init__(**options)
        self.attached, self.began = [], 0

    def _attach(self, pool, number, cancel_kills):
        self.attached.append((pool, number, cancel_kills))

    def _begin(self):
        self.began += 1


class Large(list):
    last_byte = 46


@pytest.fixture
def pool():
    return Pool(max_pending=2)


@pytest.fixture
def admission(pool):
    made = Admission(pool)
    made.owner = "the pool"
    return made


def task(pool, number, what="work", **own):
    policy = pool.machine.policy.refined(own) if own else pool.machine.policy
    return Task(number, Future(), payload.dumps(None), what, policy)


def fill(pool, admission, count=2):
    for number in range(1, count + 1):
        admission.accept(task(pool, number))


def waits(pool, admission, number, *, blocks=False, **own):
    waiter = Waiter(task(pool, number, **own), blocks=blocks)
    assert admission.must_wait(waiter)
    return waiter


def make_room(pool):
    pool.tasks.pop(min(pool.tasks))


# ---- who waits ---------------------------------------------------------------------------------------------------


def test_an_accepted_task_is_the_pools_and_its_future_knows_where_to_cancel_it(pool, admission):
    before = time.monotonic()
    each = task(pool, 7, cancel_kills=True)
    assert admission.accept(each) == ev.Submitted(7, each.policy, False)
    assert each.future.attached == [("the pool", 7, True)]
    assert before <= each.queued_at <= time.monotonic()
    assert (pool.tasks, pool.submitted, each.begun, each.future.began) == ({7: each}, 1, False, 0)


def test_what_the_machine_has_to_know_of_a_task_is_said(pool, admission):
    large = Task(8, Future(), Large(payload.dumps(None)), "work", pool.machine.policy)
    assert admission.accept(large) == ev.Submitted(8, None, True)
    chunk = Chunk(print, "work", 0, range(5), starred=False, terms=Terms(since=3.0, follows=True))
    own = pool.machine.policy.refined({"priority": 1})
    large_chunk = Task(9, Future(), Large(payload.dumps(None)), chunk, own)
    assert admission.accept(large_chunk) == ev.Submitted(9, own, True, 5, 3.0, 0, 0, True)
    plain_chunk = Task(10, Future(), payload.dumps(None), Chunk(print, "work", 0, range(5)), pool.machine.policy)
    assert admission.accept(plain_chunk) == ev.Submitted(10, None, False)
    assert large_chunk.begun is plain_chunk.begun is False


@pytest.mark.parametrize(("pending", "waits"), [(0, False), (1, False), (2, True), (3, True)])
def test_a_task_waits_where_as_many_are_pending_as_may_be(pool, admission, pending, waits):
    fill(pool, admission, pending)
    waiter = Waiter(task(pool, 9), blocks=False)
    assert admission.must_wait(waiter) is waits
    assert waiter.entered is waits
    assert list(admission.waiting) == ([9] if waits else [])


def test_where_there_is_no_limit_nobody_waits():
    pool = Pool()
    admission = Admission(pool)
    admission.owner = "the pool"
    fill(pool, admission, 5)
    waiter = Waiter(task(pool, 9), blocks=True)
    assert not admission.must_wait(waiter)
    assert (waiter.entered, waiter.gate, admission.waiting) == (False, None, {})


@pytest.mark.parametrize("blocks", [False, True])
def test_a_task_that_waits_can_be_cancelled_and_only_a_thread_has_a_gate(pool, admission, blocks):
    fill(pool, admission)
    waiter = waits(pool, admission, 3, blocks=blocks, cancel_kills=True)
    assert waiter.task.future.attached == [("the pool", 3, True)]
    assert (waiter.gate is not None) is blocks
    assert waiter.entered
    assert pool.submitted == 2, "it is not accepted yet"
    assert admission.waiting == {3: waiter}


def test_who_may_not_wait_is_told_so_in_a_callback_too_and_leaves_nothing(pool, admission):
    fill(pool, admission)
    pool.thread.does_its_work = True
    waiter = Waiter(task(pool, 3, block=False), blocks=True)
    with pytest.raises(QueueFull, match="2 tasks are pending and max_pending is 2"):
        admission.must_wait(waiter)
    assert (waiter.entered, waiter.gate, admission.waiting, waiter.task.future.attached) == (False, None, {}, [])


def test_who_does_the_pools_work_does_not_wait_for_it(pool, admission):
    fill(pool, admission)
    pool.thread.does_its_work = True
    waiter = Waiter(task(pool, 3), blocks=True)
    assert not admission.must_wait(waiter)
    assert (waiter.entered, waiter.gate, admission.waiting) == (False, None, {})


# ---- who comes next ----------------------------------------------------------------------------------------------


def test_of_the_same_priority_who_came_first_comes_first(pool, admission):
    fill(pool, admission)
    for number, priority in ((3, 0), (4, -1), (5, 2), (6, 0), (7, 2)):
        waits(pool, admission, number, priority=priority)
    order = []
    while admission.waiting:
        make_room(pool)
        order.append(admission.next().task)
    assert order == [5, 7, 3, 6, 4]
    assert admission._order == []


def test_one_place_is_for_one_task(pool, admission):
    fill(pool, admission)
    for number in (3, 4):
        waits(pool, admission, number)
    assert admission.next() is None
    make_room(pool)
    assert admission.next() == ev.Submitted(3, None, False)
    assert admission.next() is None
    assert (set(admission.waiting), set(pool.tasks)) == ({4}, {2, 3})


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.OPEN])
def test_a_pool_that_is_not_open_accepts_none_that_waits(pool, admission, phase):
    fill(pool, admission)
    waits(pool, admission, 3)
    make_room(pool)
    pool.machine.state.phase = phase
    assert admission.next() is None
    assert admission.fill() == []
    assert set(admission.waiting) == {3}


def test_a_thread_that_waits_gets_its_task_run_whether_or_not_somebody_asks_for_the_outcome(pool, admission):
    fill(pool, admission)
    for number, blocks in ((3, False), (4, True)):
        waits(pool, admission, number, blocks=blocks).task.future.wanted = False
    make_room(pool)
    assert admission.next().task == 4
    assert admission.waiting == {}


def test_what_follows_from_room_is_decided_and_handed_back(pool, admission):
    fill(pool, admission)
    waits(pool, admission, 3)
    pool.decide = lambda event, context=None: [event]
    assert admission.fill() == []
    make_room(pool)
    assert admission.fill() == [ev.Submitted(3, None, False)]
    assert admission.fill() == []


def test_a_task_is_in_one_of_both_when_accepting_it_is_interrupted(pool, admission):
    """Otherwise nobody would ever resolve its future, or let the thread go on that waits."""
    fill(pool, admission)
    waiter = waits(pool, admission, 3, blocks=True)

    def interrupt(*_):
        raise KeyboardInterrupt

    waiter.task.future._attach = interrupt
    make_room(pool)
    with pytest.raises(KeyboardInterrupt):
        admission.next()
    assert admission.waiting == {3: waiter}
    assert waiter.gate.locked()


# ---- how a wait ends ---------------------------------------------------------------------------------------------


def test_the_thread_knows_why_it_is_let_go_on_before_it_is(pool):
    waiter, seen = Waiter(task(pool, 3), blocks=True), []

    class Gate:
        def release(self):
            seen.append((waiter.error, waiter.gate))

    waiter.gate, error = Gate(), RuntimeError("no more")
    waiter.leave(error)
    waiter.leave(error)
    assert seen == [(error, None)], "and once only"


@pytest.mark.parametrize("refused", [False, True])
def test_a_thread_waits_at_its_gate_until_the_task_is_accepted_or_refused(pool, admission, refused):
    waiter, error, waited = Waiter(task(pool, 3), blocks=True), RuntimeError("no more") if refused else None, []

    class Gate:
        def acquire(self, timeout):
            waited.append(timeout)
            if len(waited) < 3:
                return False
            waiter.error = error
            return True

    waiter.gate = Gate()
    with pytest.raises(RuntimeError, match="no more") if refused else nullcontext():
        admission.wait(waiter)
    assert len(waited) == 3


def test_who_need_not_wait_does_not(pool, admission):
    admission.wait(Waiter(task(pool, 3), blocks=True))


def test_at_the_end_each_has_an_error_of_its_own_and_is_told_by_the_way_in_which_it_waits(pool, admission):
    fill(pool, admission)
    threads = [waits(pool, admission, number, blocks=True) for number in (3, 4)]
    loops = [waits(pool, admission, number) for number in (5, 6)]
    told = admission.refuse()
    assert [delivery.task.number for delivery in told] == [5, 6]
    assert set(pool.undelivered) == {5, 6}
    assert admission.waiting == {}
    assert [waiter.gate for waiter in threads] == [None, None]
    for delivery in told:
        delivery()
    errors = [waiter.error for waiter in threads] + [waiter.task.future.told[0] for waiter in loops]
    assert [str(error) for error in errors] == ["it is shut down"] * 4
    assert len({id(error) for error in errors}) == 4
    assert [waiter.task.future.told for waiter in threads] == [[], []]
    assert pool.undelivered == {}


def test_those_that_have_waited_longest_are_refused_first_and_the_rest_waits_on(pool, admission):
    fill(pool, admission)
    for number in range(3, 8):
        waits(pool, admission, number, priority=number)
    assert [delivery.task.number for delivery in admission.refuse(2)] == [3, 4]
    assert list(admission.waiting) == [5, 6, 7]
    assert len(admission.refuse(SLICE)) == 3


def test_one_that_is_withdrawn_waits_no_longer_and_others_keep_their_order(pool, admission):
    fill(pool, admission)
    for number in range(3, 103):
        waits(pool, admission, number, priority=-number % 7)
    expected = sorted(admission._order)
    for number in range(3, 100):
        assert admission.withdraw(number)
        assert not admission.withdraw(number)
        assert len(admission._order) <= 2 * len(admission.waiting) + 64, "numbers are not kept for ever"
    order = []
    while admission.waiting:
        make_room(pool)
        order.append(admission.next().task)
    assert order == [number for _, number in expected if number >= 100]


def test_in_a_forked_child_all_are_let_go_on_and_their_futures_are_still_to_be_told(pool, admission):
    fill(pool, admission)
    waiters = [waits(pool, admission, 3, blocks=True), waits(pool, admission, 4)]
    left = admission.abandon_in_forked_child()
    assert left == {3: waiters[0].task, 4: waiters[1].task}
    assert [type(waiter.error) for waiter in waiters] == [InheritedFutureError] * 2
    assert waiters[0].error is not waiters[1].error
    assert waiters[0].gate is None


def test_a_policy_of_the_tasks_own_says_whether_it_waits_and_the_pools_how_many_may(pool, admission):
    fill(pool, admission)
    assert isinstance(pool.machine.policy, Policy)
    waiter = waits(pool, admission, 3, priority=1)
    assert waiter.task.policy is not pool.machine.policy
    make_room(pool)
    assert admission.next() == ev.Submitted(3, waiter.task.policy, False)


def test_the_order_forgets_numbers_when_most_of_them_wait_no_longer_and_not_sooner(pool, admission):
    """To make it anew takes as long as it is, so that is done seldom where there are many."""
    fill(pool, admission)
    for number in range(3, 203):
        waits(pool, admission, number)
    length = len(admission._order)
    for number in range(3, 63):
        admission.withdraw(number)
        assert len(admission._order) == length, "a few do not matter"
