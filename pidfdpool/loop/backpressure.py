"""Backpressure: tasks that wait until fewer than `max_pending` tasks are pending.

The task itself waits, complete as it will be sent, and not the thread that submits it. A thread that takes an outcome
makes room. It accepts the next waiting task at once, while it still holds the pool's lock. This has three results.
There is never room while a task waits. Room is never kept for a caller that may have gone. A task either waits, and
then it can be withdrawn, or it is accepted. A caller in an event loop is not woken when its task is accepted, because
it waits only for the outcome.

`submit` returns when the task is accepted, so its thread may have to wait. Such a thread waits for a lock of its own,
the *gate*, which is released when the task waits no longer. So it is woken once, and it holds no lock while it waits.
"""

from __future__ import annotations

import threading
import time
from heapq import heappop, heappush
from itertools import islice
from typing import TYPE_CHECKING

from pidfdpool.loop import task_errors
from pidfdpool.loop.resolutions import Delivery, set_aside
from pidfdpool.process import interruptible
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import Phase
from pidfdpool.typed import Protocol

if TYPE_CHECKING:
    from pidfdpool.loop.pool_thread import PoolThread
    from pidfdpool.loop.resolutions import Context, Resolution
    from pidfdpool.loop.task import Task
    from pidfdpool.scheduler.machine import Machine

SLICE = 256  # tasks that are refused in one decision: their number has no limit, and others need the lock
_FEW = 64  # numbers of tasks that wait no longer may be left in the order


class _Pool(Protocol):
    """What admission needs of its pool."""

    machine: Machine
    tasks: dict[int, Task]
    undelivered: dict[int, Task]
    submitted: int
    thread: PoolThread

    def decide(self, event: ev.Event, context: Context = None) -> list[Resolution]:
        """Take an event and carry out what follows; return what to run without the lock."""

    def refusal(self) -> Exception | None:
        """Return why no task is accepted; None: they are."""


class Waiter:
    """A task that may have to wait until it is accepted, and the thread that waits with it."""

    __slots__ = ("blocks", "entered", "error", "gate", "task")

    def __init__(self, task: Task, *, blocks: bool) -> None:
        """blocks: whether a thread waits along with the task."""
        self.task: Task = task
        self.blocks: bool = blocks
        self.entered: bool = False  # it has had to wait, ever
        self.error: Exception | None = None  # why the task was refused
        self.gate: threading.Lock | None = None  # where a thread waits; None: it need not, or no longer

    def leave(self, error: Exception | None = None) -> None:
        """Let the thread that waits go on. error: what it is to raise."""
        self.error = error
        gate, self.gate = self.gate, None
        if gate is not None:
            gate.release()


class Admission:
    """Accepts the tasks of one pool. The caller of every method has the pool's lock, unless it says otherwise.

    The main thread may be interrupted by a handler that raises, at a prompt as a matter of course. So each change
    that must not be lost is one call of a C function, and a number in the order that does not wait means nothing.
    """

    # What recipients take for their pool, by which they cancel and kill tasks. Set before the first submit.
    owner: object

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self.waiting: dict[int, Waiter] = {}  # by the number of the task
        self._order: list[tuple[int, int]] = []  # a heap: the higher priority first, then who came first

    def accept(self, task: Task) -> ev.Submitted:
        """Add a task to the pool; return the event that is to be decided about."""
        pool, policy = self._pool, task.policy
        pool.submitted += 1
        task.queued_at = time.monotonic()
        pool.tasks[task.number] = task
        task.future._attach(self.owner, task.number, policy.cancel_kills)
        own, chunk = None if policy is pool.machine.policy else policy, task.chunk
        terms = None if chunk is None else chunk.terms
        if chunk is None or terms is None:
            return ev.Submitted(task.number, own, task.heavy)
        if terms.attempts:  # it has begun, as a part of another task
            task.attempt, task.deaths, task.begun = terms.attempts, terms.deaths, True
            task.future._begin()
        return ev.Submitted(
            task.number, own, task.heavy, chunk.counted, terms.since, terms.attempts, len(terms.deaths), terms.follows
        )

    def must_wait(self, waiter: Waiter) -> bool:
        """Have the task wait, if there is no room for it; return whether it has to.

        Raises:
            QueueFull: it may not.
        """
        pool, task = self._pool, waiter.task
        most = task.policy.max_pending
        if most is None or len(pool.tasks) < most:
            return False
        if not task.policy.block:
            raise task_errors.queue_full_error(len(pool.tasks), most)
        if pool.thread.does_its_work:
            return False  # a callback that waited would wait for itself: only its thread makes room
        task.future._attach(self.owner, task.number, task.policy.cancel_kills)
        waiter.entered = True
        if waiter.blocks:
            waiter.gate = threading.Lock()
            waiter.gate.acquire()
        self.waiting[task.number] = waiter
        heappush(self._order, (-task.policy.priority, task.number))
        return True

    def withdraw(self, number: int) -> bool:
        """Have a task wait no longer, and never run; return whether it was waiting."""
        if self.waiting.pop(number, None) is None:
            return False
        if len(self._order) > 2 * len(self.waiting) + _FEW:
            self._order = sorted(key for key in self._order if key[1] in self.waiting)
        return True

    def next(self) -> ev.Submitted | None:
        """Accept the next task that somebody wants, if there is room for it; return what is to be decided about."""
        pool = self._pool
        most = pool.machine.policy.max_pending
        while self._order and most is not None and len(pool.tasks) < most and pool.machine.phase is Phase.OPEN:
            number = self._order[0][1]
            waiter = self.waiting.get(number)
            wanted = waiter is not None and (waiter.blocks or waiter.task.future._is_wanted())
            if waiter is not None and wanted:
                # It is in both for a moment, and never in neither: an interrupted decision fails what is in either.
                accepted = self.accept(waiter.task)
                self.waiting.pop(number, None)
                heappop(self._order)
                waiter.leave()
                return accepted
            self.waiting.pop(number, None)
            heappop(self._order)
        return None

    def fill(self) -> list[Resolution]:
        """Accept as many as there is room for; return what is to be run without the lock."""
        accepted = self.next() if self.waiting else None
        return [] if accepted is None else self._pool.decide(accepted)

    def refuse(self, most: int | None = None) -> list[Resolution]:
        """Refuse tasks, because the pool accepts no more; return what tells those that wait in event loops.

        most: how many, of those that have waited longest. Default: all.
        """
        pool = self._pool
        told: list[Resolution] = []
        for number, waiter in list(islice(self.waiting.items(), most)):
            if number in pool.tasks:
                continue  # accepting it was interrupted
            error = pool.refusal()
            self.waiting.pop(number, None)
            waiter.leave(error)
            if not waiter.blocks:
                set_aside(pool.undelivered, waiter.task, error)
                told.append(Delivery(pool.undelivered, waiter.task))
        return told

    def wait(self, waiter: Waiter) -> None:
        """Wait until a task that had to wait is accepted. Without the lock.

        Raises:
            PoolBroken, RuntimeError: it was refused.
        """
        gate = waiter.gate
        if gate is not None:
            interruptible.acquire(gate)
        if waiter.error is not None:
            raise waiter.error

    def abandon_in_forked_child(self) -> dict[int, Task]:
        """Let go in a process that was forked; return the tasks, whose recipients are still to be told."""
        waiters, self.waiting = self.waiting, {}
        for waiter in waiters.values():
            waiter.leave(task_errors.inherited_error())  # a signal handler may have forked while its thread waited
        return {number: waiter.task for number, waiter in waiters.items()}
