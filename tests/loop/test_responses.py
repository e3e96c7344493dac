"""What follows from what a worker writes: most outcomes go a short way, what needs a decision a long one."""

from __future__ import annotations

import threading
from contextlib import suppress
from types import SimpleNamespace

import pytest

from pidfdpool.loop import responses
from pidfdpool.loop.outcomes import Outcome
from pidfdpool.loop.resolutions import NO_BUFFERS
from pidfdpool.loop.task import Task
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.policy import Policy
from pidfdpool.scheduler.states import State
from pidfdpool.serialization import payload
from pidfdpool.transport import framing
from tests.loop.test_parts import Recipient

LASTED = 5  # ticks, as each task's worker tells


class Future(Recipient):
    def __init__(self, **options):
        super().__init__(**options)
        self.attempts = []

    def _note_attempt(self, worker, attempt, at):
        self.attempts.append((worker, attempt))


class Core:
    """As much of a pool as outcomes ask for. `takes`: how many the machine takes at once; None: all."""

    def __init__(self, count=3, policy=None):
        self.lock = threading.RLock()
        self.tasks = {
            number: Task(number, Future(), payload.dumps(None), "function", policy or Policy(1))
            for number in range(1, count + 1)
        }
        self.futures = {number: task.future for number, task in self.tasks.items()}
        self.undelivered, self.events, self.contexts, self.left, self.ran = {}, [], [], [], []
        self.closed, self.takes, self.taken, self.wanted_script = False, None, [], 0
        self.resolver = SimpleNamespace(finished=0, cause=None, observation=None)
        self.machine = SimpleNamespace(slots=[SimpleNamespace(state=State.IDLE)], take_answers=self._take_answers)
        self.admission = SimpleNamespace(waiting={}, fill=lambda: [lambda: self.ran.append("accepted")])
        self.outbox = SimpleNamespace(
            in_leader=False,
            in_loop=False,
            left=[],
            leave=self.left.extend,
            run=lambda all_: [each() for each in all_],
        )
        self.leases = SimpleNamespace(settle=lambda link, frame: None, resend_without_segment=self._resend)

    def _take_answers(self, slot, generation, numbers, seconds, now):
        assert self.lock._is_owned()
        count = len(numbers) if self.takes is None else self.takes
        self.taken.append((tuple(numbers), round(seconds / framing.TICK)))
        return count

    def _resend(self, link, number):
        self.events.append(("resend", number))

    def decide(self, event):
        self.events.append(event)
        return [lambda: self.ran.append("decided")]

    def handle(self, event, context=None):
        assert not self.lock._is_owned()
        self.events.append(event)
        self.contexts.append(context)

    def want_script(self):
        self.wanted_script += 1


def link_of(**options):
    fields = {"slot": 0, "generation": 7, "name": (0, 7, 4711), "handle": object(), "ready_early": False}
    link = SimpleNamespace(**fields | options)
    link.stop_reading = lambda: setattr(link, "stopped", True)
    link.calls_begun = lambda _number: None
    return link


@pytest.fixture
def core():
    return Core()


@pytest.fixture
def link():
    return link_of()


def lean(number, value=None):
    (data,) = payload.dumps(number if value is None else value)
    return number, LASTED << 4, 0, data


def frame(kind, value=0, buffers=(), slot=LASTED << 4, memory=0):
    return framing.Frame(kind, slot, memory, value, list(buffers))


def error_frame(number, error):
    return frame(framing.ERROR, number, payload.dump_error(error, None))


# ---- the short way -----------------------------------------------------------------------------------------------


def test_outcomes_that_come_together_are_taken_at_once_and_told_in_their_order(core, link):
    responses.handle_frames(core, link, [lean(1), lean(2), lean(3)])
    assert core.taken == [((1, 2, 3), 3 * LASTED)]
    assert [future.told for future in core.futures.values()] == [[1], [2], [3]]
    assert [future.attempts for future in core.futures.values()] == [[(link.name, 1)]] * 3
    assert (core.tasks, core.undelivered, core.events, core.resolver.finished) == ({}, {}, [], 3)


def test_frames_that_were_made_are_taken_with_the_others(core, link):
    full = frame(framing.RESULT, 2, payload.dumps("two"))
    responses.handle_frames(core, link, [lean(1), full, error_frame(3, KeyError(3))])
    assert core.taken == [((1, 2, 3), 3 * LASTED)]
    assert core.futures[2].told == ["two"]
    assert type(core.futures[3].told[0]) is KeyError


def test_a_task_that_was_begun_in_another_way_is_not_noted_again(core, link):
    core.tasks[1].begun = True
    responses.handle_frames(core, link, [lean(1)])
    assert core.futures[1].attempts == []


def test_what_the_machine_does_not_take_goes_the_long_way(core, link):
    core.takes = 1
    responses.handle_frames(core, link, [lean(1), lean(2)])
    assert core.taken == [((1, 2), 2 * LASTED)]
    assert [(type(event), event.task) for event in core.events] == [(ev.Finished, 2)]
    core = Core()
    core.takes = 0
    responses.handle_frames(core, link, [lean(1)])
    assert [(type(event), event.task) for event in core.events] == [(ev.Finished, 1)]
    assert 1 in core.tasks, "it is the decision's"


def test_a_worker_that_goes_on_with_what_was_ahead_is_decided_about_when_the_futures_are_told(core, link):
    core.machine.slots[0].state = State.BUSY
    core.admission.waiting[9] = None
    responses.handle_frames(core, link, [lean(1)])
    assert core.events == [ev.Answered(0, 7)]
    assert core.ran == ["decided"]


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_what_is_said_between_outcomes_keeps_its_place_and_each_outcome_is_taken_once(core, link, at):
    """Guards: outcomes behind something else were taken twice, and the second time their worker was to blame."""
    frames = [lean(1), lean(2), lean(3)]
    frames.insert(at, frame(framing.UNHEALTHY, 0, [b"tired"]))
    responses.handle_frames(core, link, frames)
    assert core.events == [ev.Unhealthy(0, 7, "tired")]
    assert [future.told for future in core.futures.values()] == [[1], [2], [3]]
    assert sum(len(numbers) for numbers, _ in core.taken) == 3


def test_outcomes_of_tasks_that_are_gone_go_the_long_way_and_those_around_them_do_not(core, link):
    responses.handle_frames(core, link, [lean(1), lean(99), lean(2), lean(98), lean(3)])
    assert [event.task for event in core.events] == [99, 98]
    assert [future.told for future in core.futures.values()] == [[1], [2], [3]]


def test_where_there_is_room_again_who_waits_for_it_is_accepted(core, link):
    core.admission.waiting[9] = None
    responses.handle_frames(core, link, [lean(1)])
    assert (core.events, core.ran) == ([], ["accepted"])


def test_a_pool_that_is_closed_takes_nothing(core, link):
    core.closed = True
    responses.handle_frames(core, link, [lean(1)])
    assert core.taken == []
    assert core.futures[1].told == []


def test_a_leader_leaves_callbacks_and_what_is_behind_them(core, link):
    core.outbox.in_leader = True
    core.futures[2].callbacks = True
    responses.handle_frames(core, link, [lean(1), lean(2), lean(3)])
    assert [future.told for future in core.futures.values()] == [[1], [], []]
    assert [delivery.task.number for delivery in core.left] == [2, 3]
    assert set(core.undelivered) == {2, 3}
    assert all(task.buffers is NO_BUFFERS for task in core.undelivered.values())
    for delivery in core.left:
        delivery()
    assert [future.told for future in core.futures.values()] == [[1], [2], [3]]


def test_an_event_loop_leaves_what_is_not_quickly_rebuilt(core, link):
    core.outbox.in_leader = core.outbox.in_loop = True
    responses.handle_frames(core, link, [lean(1), lean(2, "x" * 10_000), lean(3)])
    assert [len(future.told) for future in core.futures.values()] == [1, 0, 0]


def test_what_a_handler_interrupts_is_left_with_all_behind_it(core, link):
    def interrupt(*_):
        raise KeyboardInterrupt

    resolve, core.futures[2]._resolve = core.futures[2]._resolve, interrupt
    with suppress(KeyboardInterrupt):
        responses.handle_frames(core, link, [lean(1), lean(2), lean(3)])
    assert [delivery.task.number for delivery in core.left] == [2, 3]
    core.futures[2]._resolve = resolve
    for delivery in core.left:
        delivery()
    assert [future.told for future in core.futures.values()] == [[1], [2], [3]]


# ---- the long way ------------------------------------------------------------------------------------------------


def test_an_outcome_of_nobody_is_for_the_machine_to_judge(core, link):
    responses.handle_frames(core, link, [lean(99)])
    assert [(type(event), event.task) for event in core.events] == [(ev.Finished, 99)]
    assert isinstance(core.contexts[0], Outcome)


@pytest.mark.parametrize(("error", "retryable"), [(KeyError(1), True), (OSError(1), False)])
def test_an_error_after_which_the_task_may_be_tried_again_is_decided_about(link, error, retryable):
    core = Core(policy=Policy(1, retries=1, retry_on=KeyError))
    responses.handle_frames(core, link, [error_frame(1, error)])
    [event] = core.events
    assert (event.failed, event.retryable) == (True, retryable)
    assert round(event.seconds / framing.TICK) == LASTED
    assert type(core.contexts[0].error) is type(error), "it was rebuilt to find that out"


def test_the_memory_that_a_worker_tells_is_in_kib_and_a_result_is_no_failure(core, link):
    core.takes = 0
    responses.handle_frames(core, link, [frame(framing.RESULT, 1, payload.dumps(1), memory=3)])
    [event] = core.events
    assert (event.memory, event.failed, event.retryable, event.calls) == (3 << 10, False, False, 1)


def test_each_frame_of_a_workers_is_the_event_that_it_tells_of(core, link):
    told = {
        frame(framing.DROPPED, 3): ev.Dropped(0, 7, 3),
        frame(framing.CALL_NOT_RECEIVED, 2): ("resend", 2),
        frame(framing.UNHEALTHY, 0, [b"tired \xff"]): ev.Unhealthy(0, 7, "tired \ufffd"),
        frame(framing.READY): ev.Ready(0, 7),
        frame(framing.OUTDATED): ev.Outdated(0, 7),
    }
    for each, event in told.items():
        responses.handle_frames(core, link, [each])
        assert core.events.pop() == event
    assert core.wanted_script == 0
    responses.handle_frames(core, link, [frame(framing.OUTDATED, 1)])
    assert core.events == [ev.Outdated(0, 7)]
    assert core.wanted_script == 1


def test_a_worker_that_is_ready_before_its_handle_is_there_is_remembered(core):
    link = link_of(handle=None)
    responses.handle_frames(core, link, [frame(framing.READY)])
    assert (link.ready_early, core.events) == (True, [])
    link = link_of()
    responses.handle_frames(core, link, [frame(framing.READY)])
    assert (link.ready_early, core.events) == (False, [ev.Ready(0, 7)])


@pytest.mark.parametrize("state", [State.STARTING, State.BUSY])
def test_only_a_worker_that_starts_can_have_an_initializer_that_failed(core, link, state):
    core.machine.slots[0].state = state
    failed = frame(framing.INITIALIZER_FAILED, 0, payload.dump_error(KeyError("no"), None))
    responses.handle_frames(core, link, [failed])
    [event] = core.events
    assert type(event) is ev.InitializerFailed
    assert (event.reason, type(core.resolver.cause)) == (
        ("KeyError('no')", KeyError) if state is State.STARTING else ("", type(None))
    )


def test_the_first_initializer_that_failed_is_the_cause(core, link):
    core.machine.slots[0].state = State.STARTING
    core.resolver.cause = first = ValueError("first")
    responses.handle_frames(
        core, link, [frame(framing.INITIALIZER_FAILED, 0, payload.dump_error(KeyError("no"), None))]
    )
    assert core.resolver.cause is first


def test_what_came_before_a_frame_that_no_loop_writes_counts_and_nothing_behind_it(core, link):
    def settle(_link, frame):
        if frame.value == 2:
            raise framing.ProtocolError("nonsense")

    core.leases.settle = settle
    flagged = [frame(framing.RESULT, n, payload.dumps(n), slot=framing.HAS_SEGMENT_FLAGS) for n in (1, 2, 3)]
    responses.handle_frames(core, link, flagged)
    assert [future.told for future in core.futures.values()] == [[1], [], []]
    assert core.events == [ev.ProtocolViolated(0, 7, "nonsense")]
    assert link.stopped


def test_what_has_to_do_with_segments_is_settled_first(core, link):
    settled = []
    core.leases.settle = lambda _link, frame: settled.append((frame.value, 1 in core.tasks))
    large = frame(framing.RESULT, 2, payload.dumps(b"x" * (1 << 20)))
    flagged = frame(framing.RESULT, 1, payload.dumps(1), slot=framing.HAS_SEGMENT_FLAGS)
    small = frame(framing.RESULT, 3, payload.dumps(3), slot=0)
    responses.handle_frames(core, link, [flagged, large, small])
    assert settled == [(1, True), (2, True)]
    assert core.tasks == {}


def test_of_a_chunk_as_many_calls_count_as_have_begun():
    from pidfdpool.loop.chunk_calls import Chunk, Terms

    policy = Policy(1, max_tasks_per_child=100, retries=1, retry_on=KeyError)
    for begun, counted in ((None, 4), (3, 3), (0, 1), (99, 4)):
        core, link = Core(policy=policy), link_of()
        chunk = Chunk(print, "work", 0, range(4), starred=False, terms=Terms())
        core.tasks[1] = Task(1, Future(), payload.dumps(None), chunk, policy)
        core.takes, link.calls_begun = 0, lambda _number, begun=begun: begun
        responses.handle_frames(core, link, [error_frame(1, KeyError(1))])
        assert core.events[0].calls == counted
