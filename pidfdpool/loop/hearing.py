"""What workers say, and what follows from it. Called by whoever has read from a worker's channel.

Most of what a pool does is to take outcomes, and many come in one read. So there is a short way for them, without an
event, an action and a resolution for each: they are taken under one lock and told one after the other. The machine
says how many outcomes may go this way (`take_answers`); whatever needs a decision goes the long way.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pidfdpool import describing, payload, wire
from pidfdpool import events as ev
from pidfdpool.loop.outcomes import Outcome
from pidfdpool.loop.resolving import NO_BUFFERS, Telling, tell
from pidfdpool.rules import State
from pidfdpool.segments import THRESHOLD

if TYPE_CHECKING:
    from pidfdpool.loop.links import WorkerLink
    from pidfdpool.loop.outcomes import Task
    from pidfdpool.loop.pool import Pool
    from pidfdpool.wire import Frame

OUTCOMES = (wire.RESULT, wire.ERROR)


def hear(pool: Pool, link: WorkerLink, frames: list[Frame]) -> None:
    """Take everything that came in one read, in its order."""
    for index, frame in enumerate(frames):
        if frame.kind in OUTCOMES and _is_about_segments(frame) and not pool.lender.settle(link, frame):
            frames = frames[:index]  # the worker is killed for what it wrote
            break
    at = 0
    while at < len(frames):
        at = _take_answers(pool, link, frames, at)
        if at < len(frames):
            _hear_one(pool, link, frames[at])
            at += 1


def _is_about_segments(frame: Frame) -> bool:
    return bool(frame.slot & wire.ABOUT_BORROWED or (frame.buffers and len(frame.buffers[0]) >= THRESHOLD))


def _take_answers(pool: Pool, link: WorkerLink, frames: list[Frame], at: int) -> int:
    """Take the outcomes from the frame at this place on; return the place of the first that goes the long way."""
    taken: list[Task] = []
    slot, generation, name = link.slot, link.generation, link.name
    tasks, untold = pool.tasks, pool.untold
    answers = []
    with pool.lock:
        if pool.closed:
            return at
        for frame in frames[at:]:
            task = tasks.get(frame.value)
            if task is None or (frame.kind != wire.RESULT and (frame.kind != wire.ERROR or task.policy.retries)):
                break
            answers.append((frame.value, wire.took(frame.slot)))
        count = pool.machine.take_answers(slot, generation, answers, time.monotonic())
        if not count:
            return at
        clock = time.time()
        for frame, (number, seconds) in zip(frames[at : at + count], answers, strict=False):
            task = tasks.pop(number)
            if not task.begun:
                task.future._note_attempt(name, 1, clock - seconds)
            task.verdict, task.buffers, untold[number] = frame, NO_BUFFERS, task  # as `owe` does
            taken.append(task)
        pool.finished += count
        pool.note_room()
        goes_on = pool.machine.slots[slot].state is State.BUSY
        resolutions = pool.decide(ev.Answered(slot, generation)) if goes_on else []
    told, leads = 0, pool.leading.is_serving
    try:
        for task in taken:
            if leads and pool.leading.is_held_up(task.future):
                break
            tell(untold, task)
            told += 1
    finally:
        if told < count:
            pool.leading.leave([Telling(untold, task) for task in taken[told:]])
    pool.leading.run(resolutions)
    return at + count


def _hear_one(pool: Pool, link: WorkerLink, frame: Frame) -> None:
    """Take one thing that the worker said, the long way."""
    slot, generation = link.slot, link.generation
    if frame.kind in OUTCOMES:
        _take_outcome(pool, link, frame)
    elif frame.kind == wire.DROPPED:
        pool.happen(ev.Dropped(slot, generation, frame.value))
    elif frame.kind == wire.UNSEEN:
        pool.lender.carry(link, frame.value)
    elif frame.kind == wire.UNHEALTHY:
        reason = bytes(frame.buffers[0]).decode("utf-8", "replace")
        pool.happen(ev.Unhealthy(slot, generation, reason))
    elif frame.kind == wire.OUTDATED:
        if frame.value:
            pool.want_script()
        pool.happen(ev.Outdated(slot, generation))
    elif frame.kind == wire.READY:
        link.ready_early = link.handle is None
        if not link.ready_early:
            pool.happen(ev.Ready(slot, generation))
    elif frame.kind == wire.INITIALIZER_FAILED:
        error = payload.load_error(frame.buffers)
        pool.cause = pool.cause or error
        pool.happen(ev.InitializerFailed(slot, generation, describing.repr_of(error)))


def _take_outcome(pool: Pool, link: WorkerLink, frame: Frame) -> None:
    outcome = Outcome(frame)
    task = pool.tasks.get(frame.value)
    # Looked at before the decision, because it runs the exception's own code, which the decision must not.
    retryable = task is not None and outcome.matches(task.policy)
    del task  # its call's segment is wanted for the one that is sent now
    failed = frame.kind == wire.ERROR
    memory, seconds = frame.generation << 10, wire.took(frame.slot)
    pool.happen(
        ev.Finished(link.slot, link.generation, frame.value, failed, retryable, memory, seconds),
        outcome,
    )
