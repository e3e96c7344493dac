"""What is noted of one pool while somebody observes it, and how observers get it.

There is one `Observation` per pool, and it exists only while there are observers: `Resolver.observation` is None
otherwise. So a pool that nobody observes pays one test for each read of answers and for each decision. While there is
one, workers record when their tasks run (`transport.run_times`).

The `note_` methods are called under the pool's lock, in whichever thread has decided or has read answers. They only
append records, and answers not even that: these are set aside (`attempts`). `tell` gives the records to the
observers, without the lock: in the pool thread before it sleeps (`work`), in a thread that reads answers when many
records are there, and in a thread that asks for it.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from pidfdpool.deaths import Cause
from pidfdpool.errors import DeadlineExceeded, HeartbeatLost, MemoryExceeded, TaskKilled, TaskTimeout, WorkerCrashed
from pidfdpool.loop import attempts as attempts_of
from pidfdpool.loop import observed
from pidfdpool.loop.attempts import AttemptRecords
from pidfdpool.process import native, safe_logging
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import State
from pidfdpool.transport import framing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from pidfdpool.deaths import Death
    from pidfdpool.loop.links import WorkerLink
    from pidfdpool.loop.observed import Attempts, Observer, Record
    from pidfdpool.loop.task import Task, WorkerName
    from pidfdpool.scheduler.machine import Machine
    from pidfdpool.transport.framing import Frame, Lean

MANY = 64  # records, each perhaps of many attempts, after which a thread that reads answers tells the observers
MANY_ANSWERS = 256  # that are set aside at most; the worker's times of so many are not overwritten meanwhile
LEVEL_EVERY = 0.01  # seconds
TELL_EVERY = 0.1  # seconds; each time costs a wake-up of the pool thread, which takes the lock of the interpreter
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
_log = logging.getLogger("pidfdpool")


class Observation:
    """The observers of one pool, and what they have not been told yet."""

    def __init__(
        self,
        machine: Machine,
        tasks: dict[int, Task],
        lock: AbstractContextManager[object],
        wake_by: Callable[[float], None],
    ) -> None:
        """Have no observer yet.

        lock: the pool's.
        wake_by: has the pool thread come by (`work`) at this time of time.monotonic() at the latest; with the lock.
        """
        self._machine, self._tasks = machine, tasks
        self._lock, self._wake_by = lock, wake_by
        self.observers: list[Observer] = []
        self.noted: deque[Record] = deque()
        # Held by the thread that calls the observers. It may come here again, from one of them or a signal handler.
        self._telling = native.reentrant_lock()
        self._records = AttemptRecords()
        # By the worker's generation, what it has answered last, if that needed a decision.
        self._answers: dict[int, tuple[int, Attempts]] = {}
        self._level_at = 0.0
        self._worked_at = self._wanted_at = -math.inf  # when the observers have worked, and want to work again

    # ---- telling -------------------------------------------------------------------------------------------

    def add(self, observer: Observer) -> None:
        """Tell one more observer, from now on. The caller holds the pool's lock."""
        self.observers.append(observer)
        self._wanted_at = -math.inf  # it is asked at once

    def tell(self, *, wait: bool = False) -> None:
        """Give the observers what was noted. Without the lock. wait: for another thread that is doing so."""
        if self._records.pending:
            with self._lock:  # not within the other: a signal handler that tells may have interrupted who holds this
                self.gather()
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

    def work(self, *, idle: bool) -> None:
        """Tell, and let the observers do their own work, if either is due. In the pool thread, before it sleeps."""
        now = time.monotonic()
        if now >= self._wanted_at or (self._has_news and now >= self._worked_at + TELL_EVERY):
            self.tell()
            self._alone(partial(self._work, now, idle=idle), wait=False)

    def due_at(self, now: float) -> float:
        """Return when to call `work` at the latest, after it was called. The caller holds the pool's lock.

        Both times are time.monotonic()'s; infinity: not before there is news.
        """
        at = min(self._wanted_at, self._worked_at + TELL_EVERY) if self._has_news else self._wanted_at
        # Another thread is telling, perhaps for long: who looks again at once would take a processor.
        return at if at > now else now + TELL_EVERY

    @property
    def _has_news(self) -> bool:
        return bool(self.noted) or bool(self._records.pending)

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
        self,
        link: WorkerLink,
        numbers: Sequence[int],
        tasks: Sequence[Task],
        frames: Sequence[Frame | Lean],
        now: float,
    ) -> None:
        """Note outcomes that are delivered, of consecutive answers of a worker; see `AttemptRecords.set_aside`."""
        records = self._records
        if not records.pending:
            self._wake_by(now + TELL_EVERY)  # who gathers them: they must not lie until the pool is used again
        records.set_aside(link, numbers, tasks, frames, now)
        if records.pending >= MANY_ANSWERS:
            self.gather()
        if now >= self._level_at:
            self._note_level(now)

    def gather(self) -> None:
        """Make records of the answers that are set aside. Their workers may be forgotten then."""
        self.noted += self._records.gather()

    def _note(self, record: Record) -> None:
        """Note something, after the answers that came before it."""
        if self._records.pending:
            self.gather()
        self.noted.append(record)

    def note_answer(self, link: WorkerLink, frame: Frame) -> None:
        """Note an answer about which a decision follows. What it decides is noted by `note_end` or `note_retry`."""
        self.gather()
        task = self._tasks.get(frame.value)
        if task is None:
            self._records.skip(link, frame.value)
        else:
            self._answers[link.generation] = frame.value, self._records.answered(link, task, frame)

    def note_end(self, task: Task, error: BaseException | None, *, cancelled: bool = False) -> None:
        """Note that a task is over: by the answer that was noted last, by an error of the pool's, or cancelled."""
        if cancelled:
            self._note(attempts_of.single(task, None, observed.CANCELLED, "it was cancelled"))
            return
        answered = self._answered(task)
        if error is None:
            self._note(answered or attempts_of.single(task, _worker_of(task), observed.DONE, None))
            return
        outcome = next((kind for cls, kind in _KINDS if isinstance(error, cls)), observed.FAILED)
        if outcome == observed.CRASHED and task.deaths:
            outcome = _BY_CAUSE.get(task.deaths[-1].cause, outcome)
        attempts = self._lost(task, outcome, attempts_of.shortened(str(error)))
        if answered is not None:  # it had raised because it was told to end
            attempts.began_at, attempts.ended_at = answered.began_at, answered.ended_at
        self._note(attempts)

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
        self._note(attempts)
        self._note(observed.TaskRetry(now, task.number, task.name, attempt, pause, attempts.outcomes[0]))
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
            began = max(self._machine.slots[worker[0]].busy_since, attempts_of.queued_at(task))  # which may be NaN
        attempts = attempts_of.single(task, worker, outcome, error, began, now if worker is not None else math.nan)
        if task.deaths and task.deaths[-1].attempt == task.attempt:
            attempts.death = task.deaths[-1]
        return attempts

    def _cause_of(self, task: Task) -> Cause | None:
        worker = _worker_of(task)
        return None if worker is None else self._machine.slots[worker[0]].cause

    # ---- workers and template ------------------------------------------------------------------------------

    def note_decision(self, event: ev.Event, actions: Sequence[do.Action]) -> None:
        """Note what an event, and the actions that are about to be carried out, say of workers and template."""
        kind: type[Any] = type(event)
        if kind is ev.Answered and _TOLD_ACTIONS.isdisjoint(map(type, actions)):
            return  # by far the most
        now = time.monotonic()
        if kind in _WORKER_EVENTS:
            told, field = _WORKER_EVENTS[kind]
            self._note_worker(event, told, str(getattr(event, field)) if field else "")
        elif kind in _TEMPLATE_EVENTS:
            self._note(observed.TemplateChange(now, _TEMPLATE_EVENTS[kind], getattr(event, "reason", "")))
        for action in actions:
            kind = type(action)
            if kind is do.Spawn:
                self._note_worker(action, "requested")
            elif kind is do.Signal:
                self._note_worker(action, "signalled", self._why(action, f"signal {action.signal}"))  # type: ignore[union-attr]
            elif kind is do.Stop:
                self._note_worker(action, "told to leave", self._why(action))
            elif kind is do.StartTemplate:
                self._note(observed.TemplateChange(now, "wanted"))
            elif kind is do.KillTemplate:
                self._note(observed.TemplateChange(now, "killed", "it does not answer"))
        if now >= self._level_at:
            self._note_level(now)

    def note_death(self, death: Death) -> None:
        """Note the end of a worker."""
        self.gather()
        self._records.forget(death.generation)
        self._answers.pop(death.generation, None)
        self._note(
            observed.WorkerChange(
                time.monotonic(), death.slot, death.generation, death.pid, "ended", death.cause.value, death
            )
        )

    def _note_worker(self, source: Any, kind: str, detail: str = "") -> None:
        slot = self._machine.slots[source.slot]
        pid = slot.pid if slot.generation == source.generation else None
        change = observed.WorkerChange(time.monotonic(), source.slot, source.generation, pid, kind, detail)
        self._note(change)

    def _why(self, action: Any, what: str = "") -> str:
        slot = self._machine.slots[action.slot]
        cause = slot.cause or slot.retire_cause
        return ": ".join(part for part in (what, cause.value if cause is not None else "") if part)

    def _note_level(self, now: float) -> None:
        self._level_at = now + LEVEL_EVERY
        machine = self._machine
        self._note(observed.PoolLevel(now, len(machine.queue) + len(machine.prefetched), machine.counts[State.BUSY]))


_TOLD_ACTIONS = frozenset((do.Spawn, do.Signal, do.Stop, do.StartTemplate, do.KillTemplate))
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
