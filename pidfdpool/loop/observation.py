"""What is noted of one pool while somebody observes it, and how observers get it.

There is one `Observation` per pool, and it exists only while there are observers: `Resolver.observation` is None
otherwise. So a pool that nobody observes pays one test for each read of answers and for each decision. While there is
one, workers record when their tasks run (`transport.run_times`).

The `note_` methods are called under the pool's lock, in whichever thread has decided or has read answers. They only
append records. `tell` gives these to the observers, without the lock: in the pool thread before it sleeps (`work`),
in a thread that reads answers when many records are there, and in a thread that asks for it.
"""

from __future__ import annotations

import logging
import math
import time
from array import array
from collections import deque
from contextlib import suppress
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from pidfdpool.deaths import Cause
from pidfdpool.errors import DeadlineExceeded, HeartbeatLost, MemoryExceeded, TaskKilled, TaskTimeout, WorkerCrashed
from pidfdpool.loop import observed
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.loop.observed import Same
from pidfdpool.process import native, safe_logging
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import State
from pidfdpool.transport import framing
from pidfdpool.transport.run_times import RunTimesReader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pidfdpool.deaths import Death
    from pidfdpool.loop.links import WorkerLink
    from pidfdpool.loop.observed import Attempts, Observer, Record
    from pidfdpool.loop.task import Task, WorkerName
    from pidfdpool.scheduler.machine import Machine
    from pidfdpool.transport.framing import Buffer, Frame, Lean

MANY = 64  # records, each perhaps of many attempts, after which a thread that reads answers tells the observers
LEVEL_EVERY = 0.01  # seconds
TELL_EVERY = 0.02  # seconds; to tell in each round of the pool thread would cost more than to take one answer does
_LONGEST_ERROR = 200  # characters of the text of an error
_KINDS = (
    (DeadlineExceeded, observed.TIMED_OUT),
    (TaskTimeout, observed.TIMED_OUT),
    (HeartbeatLost, observed.TIMED_OUT),
    (TaskKilled, observed.KILLED),
    (MemoryExceeded, observed.KILLED),
    (WorkerCrashed, observed.CRASHED),
)
_BY_CAUSE = {
    Cause.TIMEOUT: observed.TIMED_OUT,
    Cause.HEARTBEAT: observed.TIMED_OUT,
    Cause.KILL: observed.KILLED,
    Cause.MEMORY: observed.KILLED,
    Cause.SHUTDOWN: observed.KILLED,
}
_BUFFER = itemgetter(3)  # of a lean frame
_log = logging.getLogger("pidfdpool")


class Observation:
    """The observers of one pool, and what they have not been told yet."""

    def __init__(self, machine: Machine, tasks: dict[int, Task]) -> None:
        self._machine, self._tasks = machine, tasks
        self.observers: list[Observer] = []
        self.noted: deque[Record] = deque()
        # Held by the thread that calls the observers. It may come here again, from one of them or a signal handler.
        self._telling = native.reentrant_lock()
        self._times: dict[int, RunTimesReader] = {}  # by the worker's generation
        self._answers: dict[int, tuple[int, Attempts]] = {}  # the same: what it has answered last, the long way
        self._level_at = 0.0
        self._worked_at = self._wanted_at = -math.inf  # when the observers have worked, and want to work again

    # ---- telling -------------------------------------------------------------------------------------------

    def add(self, observer: Observer) -> None:
        """Tell one more observer, from now on. The caller holds the pool's lock."""
        self.observers.append(observer)
        self._wanted_at = -math.inf  # it is asked at once

    def tell(self, *, wait: bool = False) -> None:
        """Give the observers what was noted. Without the lock. wait: for another thread that is doing so."""
        self._alone(self._tell, wait=wait)

    def _tell(self) -> None:
        records: list[Record] = []
        with suppress(IndexError):
            while True:
                records.append(self.noted.popleft())
        if records:
            for observer in tuple(self.observers):
                self._call(observer, _take_of, observer, records)

    def tell_if_many(self) -> None:
        """Tell if much was noted. In a thread that has read answers, without the lock."""
        if len(self.noted) >= MANY:
            self.tell()

    def work(self, *, idle: bool) -> float | None:
        """Tell, and let the observers do their own work, if either is due. In the pool thread, before it sleeps.

        Returns when to call it again at the latest, as time.monotonic() tells it.
        """
        now = time.monotonic()
        if now >= self._wanted_at or (self.noted and now >= self._worked_at + TELL_EVERY):
            self.tell()
            self._alone(partial(self._work, now, idle=idle), wait=False)
        at = min(self._wanted_at, self._worked_at + TELL_EVERY) if self.noted else self._wanted_at
        if at <= now:  # another thread is telling, perhaps for long: who looks again at once would take a processor
            at = now + TELL_EVERY
        return at if at < math.inf else None

    def _work(self, now: float, *, idle: bool) -> None:
        self._worked_at = now
        wanted = (self._call(each, _work_of, each, now, idle) for each in tuple(self.observers))
        self._wanted_at = min((at for at in wanted if at is not None), default=math.inf)

    def _alone(self, act: Callable[[], None], *, wait: bool) -> None:
        """Do what calls the observers, unless a thread is at it; `wait` for it if it is not this one."""
        if self._telling._is_owned():
            return
        try:
            if self._telling.acquire(blocking=wait):
                act()
        finally:
            # At once, and in any case: a handler of a signal may raise as soon as the lock is acquired.
            try:  # noqa: SIM105  it would call something first
                self._telling.release()
            except RuntimeError:
                pass  # it is another thread's

    def end(self) -> None:
        """Tell the last, and that the pool has ended. In the pool thread, without the lock."""
        self.tell(wait=True)
        for observer in tuple(self.observers):
            self._call(observer, _end_of, observer)

    def _call(self, observer: Observer, function: Callable[..., Any], *args: Any) -> Any:
        """Call code of the observer's. It ends the observation if it fails, and nothing else."""
        try:
            return function(*args)
        except BaseException as error:
            if not isinstance(error, Exception) and native.in_main_thread():
                raise  # it may come from a handler of a signal
            with suppress(ValueError):
                self.observers.remove(observer)
            message = "the observer %r failed, and is told nothing more"
            safe_logging.log(_log, logging.ERROR, message, observer, exc_info=True)

    # ---- attempts ------------------------------------------------------------------------------------------

    def record_times(self, link: WorkerLink, *, on: bool = True) -> None:
        """Have a worker record when its tasks run, or no longer. The caller holds the pool's lock."""
        with suppress(OSError):  # it is dying
            link.post(framing.encode(framing.RECORD_TIMES, int(on)))

    def note_answers(
        self, link: WorkerLink, numbers: Sequence[int], tasks: Sequence[Task], frames: Sequence[Frame | Lean]
    ) -> None:
        """Note outcomes that are delivered, of consecutive answers of a worker. Before they are set aside."""
        count, now = len(tasks), time.monotonic()
        kept = array("q", numbers)
        began, ended = self._run_times(link).read(link.black_box, kept)
        # What is kept is to take little memory, because each new page of it takes time.
        queued = array("d", [task.queued_at for task in tasks])
        requests = list(map(len, chain.from_iterable([task.buffers for task in tasks])))
        if len(requests) != count:  # some call has several buffers
            requests = [_size_of(task.buffers) for task in tasks]
        whats = [task.what for task in tasks]
        calls: Sequence[int] = Same(1, count)
        if whats.count(whats[0]) == count and type(whats[0]) is not Chunk:
            functions: Sequence[str] = Same(tasks[0].name, count)
        else:
            functions = [task.name for task in tasks]
            calls = [_calls_of(task) for task in tasks]
        outcomes: Sequence[str] = Same(observed.DONE, count)
        errors: Sequence[str | None] = Same(None, count)
        if type(numbers) is tuple:  # all are lean: see `_plain_outcomes`
            sizes = list(map(len, map(_BUFFER, frames[:count])))  # type: ignore[arg-type]
        else:
            made = [framing.made(frame) for frame in frames[:count]]
            sizes = [sum(map(len, frame.buffers)) for frame in made]
            outcomes = [observed.FAILED if frame.kind == framing.ERROR else observed.DONE for frame in made]
            errors = [_last_line(frame.buffers) if frame.kind == framing.ERROR else None for frame in made]
        self.noted.append(
            observed.Attempts(
                link.name, kept, functions, calls, tasks[0].attempt or 1, queued,
                began, ended, requests, sizes, outcomes, errors, now,
            )
        )  # fmt: skip
        if now >= self._level_at:
            self._note_level(now)

    def note_answer(self, link: WorkerLink, frame: Frame) -> None:
        """Note an answer about which a decision follows. What it decides is noted by `note_end` or `note_retry`."""
        task = self._tasks.get(frame.value)
        began, ended = self._run_times(link).read(link.black_box, array("q", (frame.value,)))
        if task is not None:
            size = sum(map(len, frame.buffers))
            failed = frame.kind == framing.ERROR
            outcome, error = (observed.FAILED, _last_line(frame.buffers)) if failed else (observed.DONE, None)
            attempts = self._single(task, link.name, outcome, error, began[0], ended[0], size)
            self._answers[link.generation] = frame.value, attempts

    def note_end(self, task: Task, error: BaseException | None, *, cancelled: bool = False) -> None:
        """Note that a task is over: by the answer that was noted last, by an error of the pool's, or cancelled."""
        if cancelled:
            self.noted.append(self._single(task, None, observed.CANCELLED, "it was cancelled"))
            return
        answered = self._answered(task)
        if error is None:
            self.noted.append(answered or self._single(task, _worker_of(task), observed.DONE, None))
            return
        outcome = next((kind for cls, kind in _KINDS if isinstance(error, cls)), observed.FAILED)
        if outcome == observed.CRASHED and task.deaths:
            outcome = _BY_CAUSE.get(task.deaths[-1].cause, outcome)
        attempts = self._lost(task, outcome, _shortened(str(error)))
        if answered is not None:  # it had raised because it was told to end
            attempts.began_at, attempts.ended_at = answered.began_at, answered.ended_at
        self.noted.append(attempts)

    def note_retry(self, task: Task, attempt: int, pause: float) -> None:
        """Note that a task is tried again, and the attempt that has ended."""
        attempts = self._answered(task)
        if attempts is None:
            death = task.deaths[-1] if task.deaths and task.deaths[-1].attempt == task.attempt else None
            cause = death.cause if death is not None else self._cause_of(task)
            text = str(death) if death is not None else "its worker had not ended by then"
            attempts = self._lost(task, _BY_CAUSE.get(cause or Cause.CRASH, observed.CRASHED), text)
        attempts.retried = True
        now = time.monotonic()
        self.noted.append(attempts)
        self.noted.append(observed.TaskRetry(now, task.number, task.name, attempt, pause, attempts.outcomes[0]))
        task.queued_at = now

    def _answered(self, task: Task) -> Attempts | None:
        worker = _worker_of(task)
        if worker is None:
            return None
        number, attempts = self._answers.pop(worker[1], (0, None))
        return attempts if number == task.number else None

    def _lost(self, task: Task, outcome: str, error: str) -> Attempts:
        """Return an attempt that was lost, or a task that never ran."""
        now = time.monotonic()
        began, worker = math.nan, _worker_of(task) if task.begun else None
        if worker is not None:
            # The slot may have its next worker, but that has begun no task.
            began = max(self._machine.slots[worker[0]].busy_since, task.queued_at)
        attempts = self._single(task, worker, outcome, error, began, now if worker is not None else math.nan)
        if task.deaths and task.deaths[-1].attempt == task.attempt:
            attempts.death = task.deaths[-1]
        return attempts

    def _cause_of(self, task: Task) -> Cause | None:
        worker = _worker_of(task)
        return None if worker is None else self._machine.slots[worker[0]].cause

    def _single(
        self,
        task: Task,
        worker: tuple[int, int, int | None] | None,
        outcome: str,
        error: str | None,
        began: float = math.nan,
        ended: float = math.nan,
        size: int = -1,
    ) -> Attempts:
        return observed.Attempts(
            worker, (task.number,), (task.name,), (_calls_of(task),), task.attempt, (task.queued_at,),
            (began,), (ended,), (_size_of(task.buffers),), (size,), (outcome,), (error,), time.monotonic(),
        )  # fmt: skip

    def _run_times(self, link: WorkerLink) -> RunTimesReader:
        reader = self._times.get(link.generation)
        if reader is None:
            reader = self._times[link.generation] = RunTimesReader()
        return reader

    # ---- workers and template ------------------------------------------------------------------------------

    def note_decision(self, event: ev.Event, actions: Sequence[do.Action]) -> None:
        """Note what an event, and the actions that are about to be carried out, say of workers and template."""
        now = time.monotonic()
        kind: type[Any] = type(event)
        if kind in _WORKER_EVENTS:
            told, field = _WORKER_EVENTS[kind]
            self._note_worker(event, told, str(getattr(event, field)) if field else "")
        elif kind in _TEMPLATE_EVENTS:
            self.noted.append(observed.TemplateChange(now, _TEMPLATE_EVENTS[kind], getattr(event, "reason", "")))
        for action in actions:
            kind = type(action)
            if kind is do.Spawn:
                self._note_worker(action, "requested")
            elif kind is do.Signal:
                self._note_worker(action, "signalled", self._why(action, f"signal {action.signal}"))  # type: ignore[union-attr]
            elif kind is do.Stop:
                self._note_worker(action, "told to leave", self._why(action))
            elif kind is do.StartTemplate:
                self.noted.append(observed.TemplateChange(now, "wanted"))
            elif kind is do.KillTemplate:
                self.noted.append(observed.TemplateChange(now, "killed", "it does not answer"))
        if now >= self._level_at:
            self._note_level(now)

    def note_death(self, death: Death) -> None:
        """Note the end of a worker."""
        self._times.pop(death.generation, None)
        self._answers.pop(death.generation, None)
        self.noted.append(
            observed.WorkerChange(
                time.monotonic(), death.slot, death.generation, death.pid, "ended", death.cause.value, death
            )
        )

    def _note_worker(self, source: Any, kind: str, detail: str = "") -> None:
        slot = self._machine.slots[source.slot]
        pid = slot.pid if slot.generation == source.generation else None
        change = observed.WorkerChange(time.monotonic(), source.slot, source.generation, pid, kind, detail)
        self.noted.append(change)

    def _why(self, action: Any, what: str = "") -> str:
        slot = self._machine.slots[action.slot]
        cause = slot.cause or slot.retire_cause
        return ": ".join(part for part in (what, cause.value if cause is not None else "") if part)

    def _note_level(self, now: float) -> None:
        self._level_at = now + LEVEL_EVERY
        machine = self._machine
        self.noted.append(
            observed.PoolLevel(now, len(machine.queue) + len(machine.prefetched), machine.counts[State.BUSY])
        )


_WORKER_EVENTS: dict[type[Any], tuple[str, str]] = {
    ev.Spawned: ("forked", ""),
    ev.Ready: ("ready", ""),
    ev.SpawnFailed: ("not started", "reason"),
}
_TEMPLATE_EVENTS: dict[type[Any], str] = {
    ev.TemplateUp: "up",
    ev.TemplateBooted: "loaded",
    ev.TemplateLost: "lost",
    ev.TemplateUnusable: "unusable",
}


def _take_of(observer: Observer, records: Sequence[Record]) -> None:
    observer.take(records)


def _work_of(observer: Observer, now: float, idle: bool) -> float | None:
    at = observer.work(now, idle=idle)
    return None if at is None or not math.isfinite(at) else at


def _end_of(observer: Observer) -> None:
    observer.pool_ended()


def _worker_of(task: Task) -> WorkerName | None:
    """Return the worker of the task's last attempt; None: there was none, as far as is known."""
    return getattr(task, "worker", None)


def _calls_of(task: Task) -> int:
    return 1 if task.chunk is None else task.chunk.size


def _size_of(buffers: Sequence[Buffer]) -> int:
    if type(buffers) is list and len(buffers) == 1:
        return len(buffers[0])
    return sum(map(len, buffers)) if buffers else -1


def _last_line(buffers: Sequence[Buffer]) -> str:
    """Return the last line of the traceback in the payload of an exception."""
    if len(buffers) < 2:
        return "an exception that was too large to receive"
    lines = bytes(buffers[1][-4 * _LONGEST_ERROR :]).decode("utf-8", "replace").rstrip().rsplit("\n", 1)
    return _shortened(lines[-1])


def _shortened(text: str) -> str:
    line = text.split("\n", 1)[0]
    return line if len(line) <= _LONGEST_ERROR else line[: _LONGEST_ERROR - 3] + "..."
