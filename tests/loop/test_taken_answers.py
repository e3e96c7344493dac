"""What is noted of outcomes that a worker wrote, which of them go the short way, and what else it may write."""

from __future__ import annotations

import time
import weakref
from types import SimpleNamespace

import pytest

from pidfdpool.loop import responses
from pidfdpool.loop.chunk_calls import Chunk, Terms
from pidfdpool.loop.resolutions import NO_BUFFERS
from pidfdpool.loop.task import Task
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.policy import Policy
from pidfdpool.scheduler.states import State
from pidfdpool.serialization import payload
from pidfdpool.transport import framing
from pidfdpool.transport.segments import THRESHOLD
from tests.loop.test_responses import LASTED, Core, Future, error_frame, frame, lean, link_of


class Observation:
    """Notes what it is told, and whether the lock was held then."""

    def __init__(self, core):
        self.core, self.log = core, []

    def note_answers(self, link, numbers, tasks, frames, now):
        verdicts = [hasattr(task, "verdict") for task in tasks]
        self.log.append((self.core.lock._is_owned(), tuple(numbers), [task.number for task in tasks], verdicts))
        self.frames = list(frames)

    def note_answer(self, link, frame):
        self.log.append((self.core.lock._is_owned(), frame.value, len(frame.buffers)))

    def tell_if_many(self):
        self.log.append((self.core.lock._is_owned(), "told", len(self.core.undelivered)))


@pytest.fixture
def core():
    return Core()


@pytest.fixture
def link():
    return link_of()


def told(core):
    return [future.told for future in core.futures.values()]


# ---- what is noted -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["lean", "frame"])
def test_a_future_is_told_when_its_task_was_begun_as_far_as_its_duration_tells_that(core, link, form):
    noted, ticks = [], 100_000
    for future in core.futures.values():
        future._note_attempt = lambda worker, attempt, at: noted.append((worker, attempt, at))
    (data,) = payload.dumps(1)
    slot = ticks << 4 | (framing.HAS_SEGMENT_FLAGS if form == "frame" else 0)
    before = time.time()
    made = (1, slot, 0, data) if form == "lean" else frame(framing.RESULT, 1, [data], slot=slot)
    responses.handle_frames(core, link, [made])
    [(worker, attempt, at)] = noted
    assert (worker, attempt) == (link.name, 1)
    assert before <= at + ticks * framing.TICK <= time.time()
    assert core.taken == [((1,), ticks)]


def test_what_a_task_keeps_of_its_call_is_let_go_of_when_its_outcome_is_taken(core, link):
    tasks, answer = dict(core.tasks), lean(1)
    core.futures[1]._resolve = lambda result, error: seen.append(
        (tasks[1].buffers is NO_BUFFERS, tasks[1].verdict is answer, 1 in core.undelivered, 1 in core.tasks)
    )
    seen = []
    responses.handle_frames(core, link, [answer])
    assert seen == [(True, True, True, False)]


@pytest.mark.parametrize("takes", [1, 2, None])
def test_as_many_are_counted_and_set_aside_as_the_machine_has_taken(core, link, takes):
    core.takes = takes
    core.handle = lambda event, context=None: core.events.append(event)
    responses.handle_frames(core, link, [lean(1), lean(2)])
    count = 2 if takes is None else takes
    assert core.resolver.finished == count
    assert set(core.tasks) == {1, 2, 3} - set(range(1, count + 1))
    assert told(core)[:2] == [[number] if number <= count else [] for number in (1, 2)]
    assert [event.task for event in core.events] == ([2] if takes == 1 else [])


def test_who_observes_is_told_of_outcomes_before_they_are_set_aside_and_of_many_without_the_lock(core, link):
    observation = core.resolver.observation = Observation(core)
    answers = [lean(1), lean(2)]
    responses.handle_frames(core, link, answers)
    assert observation.log == [(True, (1, 2), [1, 2], [False, False]), (False, "told", 0)]
    assert observation.frames == answers


def test_of_those_behind_something_else_the_observer_has_the_frames_that_belong_to_them(core, link):
    observation = core.resolver.observation = Observation(core)
    answers = [frame(framing.UNHEALTHY, 0, [b"tired"]), lean(1), lean(2)]
    responses.handle_frames(core, link, answers)
    assert observation.log[0][1] == (1, 2)
    assert observation.frames[:2] == answers[1:]


def test_of_an_answer_that_goes_the_long_way_an_observer_is_told_before_it_is_decided(core, link):
    observation, core.takes = Observation(core), 0
    core.resolver.observation = observation
    handle = core.handle
    core.handle = lambda *given: (observation.log.append("decided"), handle(*given))
    responses.handle_frames(core, link, [lean(1)])
    assert observation.log == [(True, 1, 1), "decided", (False, "told", 0)]


# ---- the short way and the long one ------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 1])
def test_an_error_goes_the_short_way_only_where_nothing_is_tried_again(link, retries):
    core = Core(policy=Policy(1, retries=retries, retry_on=OSError))
    responses.handle_frames(core, link, [error_frame(1, KeyError(1)), lean(2)])
    assert [numbers for numbers, _ in core.taken] == ([(2,)] if retries else [(1, 2)])
    assert len(core.events) == retries
    assert told(core)[1] == [2]


def test_a_result_goes_the_short_way_where_errors_are_tried_again(link):
    core = Core(policy=Policy(1, retries=1, retry_on=OSError))
    responses.handle_frames(core, link, [frame(framing.RESULT, 1, payload.dumps("one")), lean(2)])
    assert [numbers for numbers, _ in core.taken] == [(1, 2)]
    assert told(core)[:2] == [["one"], [2]]


@pytest.mark.parametrize(
    "other", [frame(framing.RESULT, 99, payload.dumps(1)), error_frame(99, KeyError()), frame(framing.DROPPED, 2)]
)
def test_what_is_no_outcome_of_a_task_that_is_known_goes_the_long_way(core, link, other):
    """Its number may be that of a task by chance."""
    responses.handle_frames(core, link, [lean(1), other])
    assert [numbers for numbers, _ in core.taken] == [(1,)]
    assert len(core.events) == 1


def test_a_worker_that_has_nothing_ahead_needs_no_decision(core, link):
    responses.handle_frames(core, link, [lean(1)])
    assert (core.events, core.ran) == ([], [])


@pytest.mark.parametrize("left", [False, True])
def test_nothing_that_a_leader_reads_overtakes_what_was_left_before(core, link, left):
    core.outbox.in_leader, core.outbox.left = True, [None] * left
    responses.handle_frames(core, link, [lean(1), lean(2)])
    assert told(core)[:2] == ([[], []] if left else [[1], [2]])
    assert [delivery.task.number for delivery in core.left] == ([1, 2] if left else [])


def test_the_pool_thread_makes_callbacks_in_their_place(core, link):
    core.futures[1].callbacks, core.outbox.left = True, [None]
    responses.handle_frames(core, link, [lean(1), lean(2)])
    assert told(core)[:2] == [[1], [2]]
    assert core.left == []


def test_a_leader_that_is_no_event_loop_rebuilds_whatever_there_is(core, link):
    core.outbox.in_leader = True
    responses.handle_frames(core, link, [lean(1, "x" * 10_000)])
    assert told(core)[0] == ["x" * 10_000]
    assert core.left == []


def test_the_order_of_the_frames_is_that_of_the_decisions(core, link):
    core.takes = 0
    frames = [lean(1), frame(framing.UNHEALTHY, 0, [b"tired"]), lean(2), frame(framing.DROPPED, 3)]
    responses.handle_frames(core, link, frames)
    assert [type(event) for event in core.events] == [ev.Finished, ev.Unhealthy, ev.Finished, ev.Dropped]


# ---- what a decision has to know ---------------------------------------------------------------------------------


def test_a_decision_knows_whose_outcome_it_is_and_what_it_has_cost(core):
    core.takes = 0
    link = link_of(slot=0, generation=8)
    responses.handle_frames(core, link, [frame(framing.RESULT, 2, payload.dumps(1), memory=5)])
    [event] = core.events
    assert (event.slot, event.generation, event.task, event.memory) == (0, 8, 2, 5 << 10)
    assert event.seconds == pytest.approx(LASTED * framing.TICK)


@pytest.mark.parametrize(("limit", "chunked"), [(None, True), (100, False)])
def test_calls_are_counted_only_for_a_chunk_where_a_worker_may_make_so_many(link, limit, chunked):
    policy, asked = Policy(1, max_tasks_per_child=limit), []
    core, link.calls_begun = Core(policy=policy), lambda number: asked.append(number) or 3
    if chunked:
        chunk = Chunk(print, "work", 0, range(4), starred=False, terms=Terms())
        core.tasks[1] = Task(1, Future(), payload.dumps(None), chunk, policy)
    core.takes = 0
    responses.handle_frames(core, link, [lean(1)])
    assert (core.events[0].calls, asked) == (1, [])


@pytest.mark.parametrize("begun", [None, 0, 3])
def test_a_chunk_that_is_one_task_counts_as_one_call_at_most(link, begun):
    policy, asked = Policy(1, max_tasks_per_child=100), []
    core, link.calls_begun = Core(policy=policy), lambda number: asked.append(number) or begun
    chunk = Chunk(print, "work", 0, range(4), starred=False)
    core.tasks[2] = Task(2, Future(), payload.dumps(None), chunk, policy)
    core.takes = 0
    responses.handle_frames(core, link, [lean(2)])
    assert (core.events[0].calls, asked) == (1, [2])


def test_an_initializer_that_fails_is_told_of_with_its_worker(core):
    core.machine.slots[0].state = State.STARTING
    failed = frame(framing.INITIALIZER_FAILED, 0, payload.dump_error(KeyError("no"), None))
    responses.handle_frames(core, link_of(generation=9), [failed])
    assert core.events == [ev.InitializerFailed(0, 9, "KeyError('no')")]
    assert core.resolver.cause.args == ("no",)


# ---- segments and faults -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "settles"),
    [
        (frame(framing.RESULT, 1, [bytes(THRESHOLD - 1)]), False),
        (frame(framing.RESULT, 1, [bytes(THRESHOLD)]), True),
        (frame(framing.ERROR, 1, [bytes(THRESHOLD), b""]), True),
        (frame(framing.ERROR, 1, [b"", bytes(THRESHOLD)], slot=framing.CALL_SEGMENT_FREE), True),
        (frame(framing.RESULT, 1, [], slot=framing.LEASE_NOT_RECEIVED), True),
        (frame(framing.RESULT, 1, [], slot=16), False),
        (frame(framing.UNHEALTHY, 0, [b"x"], slot=framing.HAS_SEGMENT_FLAGS), False),
        (frame(framing.DROPPED, 1, slot=framing.HAS_SEGMENT_FLAGS), False),
    ],
    ids=["small", "large", "large error", "flags", "no lease", "no flags", "reason", "dropped"],
)
def test_segments_are_settled_by_outcomes_that_are_large_or_say_something_of_them(core, link, made, settles):
    settled, core.takes = [], 0
    core.leases.settle = lambda *given: settled.append(given)
    responses.handle_frames(core, link, [made, lean(2)])
    assert settled == ([(link, made)] if settles else [])


def test_a_worker_that_wrote_nonsense_is_read_no_more_and_said_to_be_killed_with_what_it_wrote(core, link, caplog):
    order = []
    link.stop_reading = lambda: order.append("stop")
    core.handle = lambda event: order.append(event)
    responses.reject_worker(core, link, framing.ProtocolError("nonsense"))
    assert order == ["stop", ev.ProtocolViolated(0, 7, "nonsense")]
    [record] = caplog.records
    assert record.getMessage() == "worker 0 (pid 4711) wrote nonsense; it is killed"
    assert (record.name, record.levelname) == ("pidfdpool", "WARNING")


def test_the_first_frame_may_be_the_fault(core, link):
    def settle(_link, _frame):
        raise framing.ProtocolError("nonsense")

    core.leases.settle = settle
    responses.handle_frames(core, link, [frame(framing.RESULT, 1, [b""], slot=1), lean(2)])
    assert told(core) == [[], [], []]
    assert core.events == [ev.ProtocolViolated(0, 7, "nonsense")]


# ---- the rest ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relayed", [False, True])
def test_what_a_worker_logs_is_taken_where_it_is_relayed(core, link, relayed):
    taken = []
    core.logs = SimpleNamespace(take=lambda *given: taken.append(given)) if relayed else None
    logged = frame(framing.LOG, 1, [b"record"])
    responses.handle_frames(core, link, [logged])
    assert taken == ([(link, logged, core.tasks)] if relayed else [])
    assert core.events == []


@pytest.mark.parametrize("fault", [None, framing.ProtocolError("no stream")])
def test_items_of_a_stream_are_taken_and_those_of_none_are_a_fault(core, link, fault, monkeypatch):
    from pidfdpool.loop import streams

    taken, items = [], frame(framing.ITEMS, 1, [b"item"])
    monkeypatch.setattr(streams, "take_items", lambda *given: taken.append(given) or fault)
    responses.handle_frames(core, link, [items])
    assert taken == [(core, link, items)]
    assert core.events == ([] if fault is None else [ev.ProtocolViolated(0, 7, "no stream")])


def test_where_nothing_is_left_the_pool_thread_is_not_woken(core, link):
    core.outbox.leave = core.left.append
    responses.handle_frames(core, link, [lean(1), lean(2)])
    assert core.left == []


def test_while_a_decision_is_carried_out_nobody_keeps_a_task_that_is_over(core, link):
    """Guards: the segment of its call was wanted for the task that is sent now."""

    class Held:
        pass

    held, gone = Held(), []
    core.tasks[1].held, reference = held, weakref.ref(held)
    del held

    def handle(event, _context):
        core.tasks.pop(event.task)
        gone.append(reference() is None)

    core.takes, core.handle = 0, handle
    responses.handle_frames(core, link, [lean(1)])
    assert gone == [True]
