"""What workers say, and what follows from it. Called by whoever has read from a worker's channel.

Most of what a pool does is to take outcomes, and many come in one read. So there is a short way for them, without an
event, an action and a resolution for each: they are taken under one lock and told one after the other. The machine
says how many outcomes may go this way (`take_answers`); whatever needs a decision goes the long way.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from pidfdpool.loop.outcomes import Outcome, told_error
from pidfdpool.loop.resolutions import NO_BUFFERS, Telling, tell
from pidfdpool.process import describe, journal
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import State
from pidfdpool.transport import framing
from pidfdpool.transport.segments import THRESHOLD

if TYPE_CHECKING:
    from pidfdpool.loop.links import WorkerLink
    from pidfdpool.loop.outcomes import Task
    from pidfdpool.loop.pool import Pool
    from pidfdpool.loop.resolutions import Resolution
    from pidfdpool.transport.framing import Frame

OUTCOMES = (framing.RESULT, framing.ERROR)
_log = logging.getLogger("pidfdpool")


def hear(pool: Pool, link: WorkerLink, frames: list[Frame]) -> None:
    """Take everything that came in one read, in its order."""
    fault: framing.WireError | None = None
    for index, frame in enumerate(frames):
        if frame.kind in OUTCOMES and _is_about_segments(frame):
            try:
                pool.lender.settle(link, frame)
            except framing.WireError as error:
                frames, fault = frames[:index], error
                break
    at = 0
    while at < len(frames):
        at = _take_answers(pool, link, frames, at)
        if at < len(frames):
            _hear_one(pool, link, frames[at])
            at += 1
    if fault is not None:
        reject(pool, link, fault)


def reject(pool: Pool, link: WorkerLink, fault: framing.WireError) -> None:
    """Have a worker killed for what it wrote, of which its loop is not capable. What came before that counts."""
    message = "worker %d (pid %s) wrote %s; it is killed"
    journal.write(_log, logging.WARNING, message, link.slot, link.name[2], fault)
    link.stop_reading()
    pool.happen(ev.Babbled(link.slot, link.generation, str(fault)))


def _is_about_segments(frame: Frame) -> bool:
    return bool(frame.slot & framing.ABOUT_BORROWED or (frame.buffers and len(frame.buffers[0]) >= THRESHOLD))


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
            if task is None or (
                frame.kind != framing.RESULT and (frame.kind != framing.ERROR or task.policy.retries)
            ):
                break
            answers.append((frame.value, framing.took(frame.slot)))
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
        goes_on = pool.machine.slots[slot].state is State.BUSY
        resolutions: list[Resolution] = []
        if goes_on:
            resolutions = pool.decide(ev.Answered(slot, generation))
        elif pool.line.places:
            resolutions = pool.line.fill()
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
    if resolutions:
        pool.leading.run(resolutions)
    return at + count


def _hear_one(pool: Pool, link: WorkerLink, frame: Frame) -> None:
    """Take one thing that the worker said, the long way."""
    slot, generation = link.slot, link.generation
    if frame.kind in OUTCOMES:
        _take_outcome(pool, link, frame)
    elif frame.kind == framing.DROPPED:
        pool.happen(ev.Dropped(slot, generation, frame.value))
    elif frame.kind == framing.UNSEEN:
        pool.lender.carry(link, frame.value)
    elif frame.kind == framing.UNHEALTHY:
        reason = bytes(frame.buffers[0]).decode("utf-8", "replace")
        pool.happen(ev.Unhealthy(slot, generation, reason))
    elif frame.kind == framing.OUTDATED:
        if frame.value:
            pool.want_script()
        pool.happen(ev.Outdated(slot, generation))
    elif frame.kind == framing.READY:
        link.ready_early = link.handle is None
        if not link.ready_early:
            pool.happen(ev.Ready(slot, generation))
    elif frame.kind == framing.INITIALIZER_FAILED:
        _take_failed_start(pool, link, frame)


def _take_failed_start(pool: Pool, link: WorkerLink, frame: Frame) -> None:
    reason = ""
    if pool.machine.slots[link.slot].state is State.STARTING:  # otherwise its loop has not said so
        error = told_error(frame.buffers)
        pool.cause = pool.cause or error
        reason = describe.repr_of(error)
    pool.happen(ev.InitializerFailed(link.slot, link.generation, reason))


def _take_outcome(pool: Pool, link: WorkerLink, frame: Frame) -> None:
    outcome = Outcome(frame)
    task = pool.tasks.get(frame.value)
    # Looked at before the decision, because it runs the exception's own code, which the decision must not.
    retryable = task is not None and outcome.matches(task.policy)
    del task  # its call's segment is wanted for the one that is sent now
    failed = frame.kind == framing.ERROR
    memory, seconds = frame.generation << 10, framing.took(frame.slot)
    pool.happen(
        ev.Finished(link.slot, link.generation, frame.value, failed, retryable, memory, seconds),
        outcome,
    )
