"""What workers answer, and what follows from it. Called by the thread that reads channels.

Most of what a pool does is to take outcomes, and many come in one read. So there is a short way for them, without an
event, an action and a resolution for each: they are taken under one lock, and their futures resolved one after the
other. The machine says how many outcomes may go this way (`take_answers`). Whatever needs a decision goes the long
way.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING

from pidfdpool.loop.outcomes import Outcome, load_error
from pidfdpool.loop.resolutions import NO_BUFFERS, Delivery, deliver, is_quickly_rebuilt
from pidfdpool.process import describe, safe_logging
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import State
from pidfdpool.transport import framing
from pidfdpool.transport.segments import THRESHOLD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pidfdpool.loop.decisions import Decisions
    from pidfdpool.loop.links import WorkerLink
    from pidfdpool.loop.resolutions import Resolution
    from pidfdpool.loop.task import Task
    from pidfdpool.transport.framing import Frame, Lean

OUTCOMES = (framing.RESULT, framing.ERROR)
_LEAN = frozenset((tuple,))
_TICK = framing.TICK
_log = logging.getLogger("pidfdpool")


def handle_frames(core: Decisions, link: WorkerLink, frames: Sequence[Frame | Lean]) -> None:
    """Take everything that came in one read, in its order."""
    fault: framing.ProtocolError | None = None
    if not _LEAN.issuperset(map(type, frames)):
        frames, fault = _settled(core, link, frames)
    at, count = 0, len(frames)
    while at < count:
        at = _take_answers(core, link, frames, at)
        if at < count:
            _handle_frame(core, link, framing.made(frames[at]))
            at += 1
    if fault is not None:
        reject_worker(core, link, fault)


def _settled(
    core: Decisions, link: WorkerLink, frames: Sequence[Frame | Lean]
) -> tuple[Sequence[Frame | Lean], framing.ProtocolError | None]:
    """Take note of what the frames say of segments; return those before the first fault, and that."""
    for index, frame in enumerate(frames):
        if (
            type(frame) is framing.Frame
            and frame.kind in OUTCOMES
            and (frame.slot & framing.SEGMENT_FLAGS or (frame.buffers and len(frame.buffers[0]) >= THRESHOLD))
        ):
            try:
                core.leases.settle(link, frame)
            except framing.ProtocolError as error:
                return frames[:index], error
    return frames, None


def reject_worker(core: Decisions, link: WorkerLink, fault: framing.ProtocolError) -> None:
    """Have a worker killed for what it wrote, of which its loop is not capable. What came before that counts."""
    message = "worker %d (pid %s) wrote %s; it is killed"
    safe_logging.log(_log, logging.WARNING, message, link.slot, link.name[2], fault)
    link.rejected = True
    link.stop_reading()
    core.handle(ev.ProtocolViolated(link.slot, link.generation, str(fault)))


def _note_verdicts(
    taken: list[Task], frames: Sequence[Frame | Lean], durations: Sequence[int], name: tuple[int, int, int | None]
) -> None:
    """Give each of these tasks the frame of its outcome, and its future the attempt. name: the worker's."""
    clock = time.time()
    for task, frame, duration in zip(taken, frames, durations, strict=False):
        task.verdict = frame
        task.buffers = NO_BUFFERS  # as in `set_aside`
        if not task.begun:
            task.future._note_attempt(name, 1, clock - (duration >> 4) * _TICK)


def _take_answers(core: Decisions, link: WorkerLink, frames: Sequence[Frame | Lean], at: int) -> int:
    """Take the outcomes from the frame at this place on; return the place of the first that goes the long way."""
    slot, generation, name = link.slot, link.generation, link.name
    tasks, undelivered, outbox = core.tasks, core.undelivered, core.outbox
    with core.lock:
        if core.closed:
            return at
        frames, numbers, durations = _plain_outcomes(tasks, frames[at:] if at else frames)
        if not numbers:
            return at
        seconds, now = (sum(durations) >> 4) * framing.TICK, time.monotonic()  # as `decode_duration`
        count = core.machine.take_answers(slot, generation, numbers, seconds, now)
        if not count:
            return at
        if count < len(numbers):
            numbers = numbers[:count]
        # Each of these takes one step for all. A process that is forked in between finds the tasks in one of the two.
        taken: list[Task] = list(map(tasks.__getitem__, numbers))
        undelivered.update(zip(numbers, taken, strict=True))
        deque(map(tasks.pop, numbers), maxlen=0)
        if core.resolver.observation is not None:
            core.resolver.observation.note_answers(link, numbers, taken, frames, now)
        _note_verdicts(taken, frames, durations, name)
        core.resolver.finished += count
        goes_on = core.machine.slots[slot].state is State.BUSY
        resolutions: list[Resolution] = []
        if goes_on:
            resolutions = core.decide(ev.Answered(slot, generation))
        elif core.admission.waiting:
            resolutions = core.admission.fill()
    delivered, leads, in_loop = 0, outbox.in_leader, outbox.in_loop
    try:
        for task in taken:
            # As `must_leave`.
            if leads and (
                outbox.left or task.future._has_callbacks() or (in_loop and not is_quickly_rebuilt(task.verdict))
            ):
                break
            deliver(undelivered, task)
            delivered += 1
    finally:
        if delivered < count:
            outbox.leave([Delivery(undelivered, task) for task in taken[delivered:]])
    if resolutions:
        outbox.run(resolutions)
    if (observation := core.resolver.observation) is not None:
        observation.tell_if_many()
    return at + count


def _plain_outcomes(
    tasks: Mapping[int, Task], frames: Sequence[Frame | Lean]
) -> tuple[Sequence[Frame | Lean], Sequence[int], Sequence[int]]:
    """Return the outcomes after which their tasks are over in any case, up to the first frame that is something else.

    With them come the numbers of their tasks, and how long these took, in the form of `encode_duration`.
    """
    if _LEAN.issuperset(map(type, frames)):
        of_all: tuple[tuple[int, ...], ...] = tuple(zip(*frames, strict=True))
        if all(map(tasks.__contains__, of_all[0])):
            return frames, of_all[0], of_all[1]
    numbers, durations = [], []
    for frame in takewhile(partial(_is_plain, tasks), frames):
        number, slot = frame[:2] if isinstance(frame, tuple) else (frame.value, frame.slot)
        numbers.append(number)
        durations.append(slot & ~framing.SEGMENT_FLAGS)
    return frames, numbers, durations


def _is_plain(tasks: Mapping[int, Task], frame: Frame | Lean) -> bool:
    if type(frame) is tuple:
        return frame[0] in tasks
    assert type(frame) is framing.Frame
    task = tasks.get(frame.value)
    kind = frame.kind
    return task is not None and (kind == framing.RESULT or (kind == framing.ERROR and not task.policy.retries))


def _handle_frame(core: Decisions, link: WorkerLink, frame: Frame) -> None:
    """Take one frame of the worker's, the long way."""
    slot, generation = link.slot, link.generation
    if frame.kind in OUTCOMES:
        _take_outcome(core, link, frame)
    elif frame.kind == framing.DROPPED:
        core.handle(ev.Dropped(slot, generation, frame.value))
    elif frame.kind == framing.CALL_NOT_RECEIVED:
        core.leases.resend_without_segment(link, frame.value)
    elif frame.kind == framing.UNHEALTHY:
        reason = bytes(frame.buffers[0]).decode("utf-8", "replace")
        core.handle(ev.Unhealthy(slot, generation, reason))
    elif frame.kind == framing.OUTDATED:
        if frame.value:
            core.want_script()
        core.handle(ev.Outdated(slot, generation))
    elif frame.kind == framing.READY:
        link.ready_early = link.handle is None
        if not link.ready_early:
            core.handle(ev.Ready(slot, generation))
    elif frame.kind == framing.LOG:
        if core.logs is not None:
            core.logs.take(link, frame, core.tasks)
    elif frame.kind == framing.ITEMS:
        from pidfdpool.loop import streams  # most pools have none

        fault = streams.take_items(core, link, frame)
        if fault is not None:
            reject_worker(core, link, fault)
    elif frame.kind == framing.INITIALIZER_FAILED:
        _take_failed_start(core, link, frame)


def _take_failed_start(core: Decisions, link: WorkerLink, frame: Frame) -> None:
    reason = ""
    if core.machine.slots[link.slot].state is State.STARTING:  # otherwise its loop has not said so
        error = load_error(frame.buffers)
        core.resolver.cause = core.resolver.cause or error
        reason = describe.repr_of(error)
    core.handle(ev.InitializerFailed(link.slot, link.generation, reason))


def _take_outcome(core: Decisions, link: WorkerLink, frame: Frame) -> None:
    if (observation := core.resolver.observation) is not None:
        with core.lock:
            observation.note_answer(link, frame)
    outcome = Outcome(frame)
    task = core.tasks.get(frame.value)
    counted = 1
    if task is not None and task.policy.max_tasks_per_child is not None and task.chunk is not None:
        most, begun = task.chunk.counted or 1, link.calls_begun(frame.value)
        counted = most if begun is None else max(1, min(begun, most))
    # Looked at before the decision, because it runs the exception's own code, which the decision must not.
    retryable = task is not None and outcome.matches(task.policy)
    del task  # its call's segment is wanted for the one that is sent now
    failed = frame.kind == framing.ERROR
    memory, seconds = frame.generation << 10, framing.decode_duration(frame.slot)
    core.handle(
        ev.Finished(link.slot, link.generation, frame.value, failed, retryable, memory, seconds, counted),
        outcome,
    )
    if observation is not None:
        observation.tell_if_many()
