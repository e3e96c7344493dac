"""The line of those who wait for room: until fewer than `max_pending` tasks are pending.

It is the tasks that stand in line, complete as they will be sent. Whoever makes room, by taking an outcome say, takes
the next of them in at once, under the same hold of the pool's lock. So there is no room while somebody waits; nobody
is promised room who may have left by then; and a task is either in the line, where it can be withdrawn, or accepted.
Who waits in an event loop is not even woken: the outcome comes, sooner or later.

A thread that is to wait, because `submit` returns when the task is accepted, waits at a gate of its own: a lock that
is released when the task leaves the line. It is woken once, and holds nothing meanwhile.
"""

from __future__ import annotations

import threading
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from pidfdpool.loop import outcomes
from pidfdpool.loop.resolutions import Telling, owe
from pidfdpool.process import interruptible
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import Phase

if TYPE_CHECKING:
    from pidfdpool.loop.outcomes import Task
    from pidfdpool.loop.pool import Pool
    from pidfdpool.loop.pool_thread import PoolThread
    from pidfdpool.loop.resolutions import Resolution

_FEW = 64  # numbers of tasks that have left the line may be left in the order


class Place:
    """Where a task stands: it may have to wait in the line, or not."""

    __slots__ = ("blocks", "entered", "error", "gate", "task")

    def __init__(self, task: Task, *, blocks: bool) -> None:
        """blocks: whether a thread waits along with the task."""
        self.task = task
        self.blocks = blocks
        self.entered = False  # the line, ever
        self.error: Exception | None = None  # why the task was refused
        self.gate: threading.Lock | None = None  # where a thread waits; None: it need not, or no longer

    def leave(self, error: Exception | None = None) -> None:
        """Let the thread that waits go on. error: what it is to raise."""
        self.error = error
        gate, self.gate = self.gate, None
        if gate is not None:
            gate.release()


class Line:
    """Those of one pool. The caller of every method has the pool's lock, except where it says otherwise.

    The main thread may be interrupted by a handler that raises, at a prompt as a matter of course. So each change
    that must not be lost is one call of a C function, and a number in the order that has no place means nothing.
    """

    def __init__(self, pool: Pool, thread: PoolThread) -> None:
        self._pool = pool
        self._thread = thread
        self.places: dict[int, Place] = {}  # by the number of the task
        self._order: list[tuple[int, int]] = []  # a heap: the higher priority first, then who came first

    def taken_in(self, task: Task) -> ev.Submitted:
        """Take an accepted task into the pool; return what is to be decided about."""
        pool, policy = self._pool, task.policy
        pool.submitted += 1
        pool.tasks[task.number] = task
        task.future._attach(pool, task.number, policy.cancel_kills)
        return ev.Submitted(task.number, None if policy is pool.machine.policy else policy, task.heavy)

    def enter_unless_room(self, place: Place) -> bool:
        """Have the task wait, if there is no room for it; return whether it has to.

        Raises:
            QueueFull: it may not.
        """
        pool, task = self._pool, place.task
        most = task.policy.max_pending
        if most is None or len(pool.tasks) < most:
            return False
        if not task.policy.block:
            raise outcomes.refused(len(pool.tasks), most)
        if self._thread.is_current:
            return False  # a callback that waited would wait for itself: only its thread makes room
        task.future._attach(pool, task.number, task.policy.cancel_kills)
        place.entered = True
        if place.blocks:
            place.gate = threading.Lock()
            place.gate.acquire()
        self.places[task.number] = place
        heappush(self._order, (-task.policy.priority, task.number))
        return True

    def withdraw(self, number: int) -> bool:
        """Have a task wait no longer, and never run; return whether it was in the line."""
        if self.places.pop(number, None) is None:
            return False
        if len(self._order) > 2 * len(self.places) + _FEW:
            self._order = sorted(key for key in self._order if key[1] in self.places)
        return True

    def next(self) -> ev.Submitted | None:
        """Accept the next task that somebody wants, if there is room for it; return what is to be decided about."""
        pool = self._pool
        most = pool.machine.policy.max_pending
        while self._order and most is not None and len(pool.tasks) < most and pool.machine.phase is Phase.OPEN:
            number = self._order[0][1]
            place = self.places.get(number)
            wanted = place is not None and (place.blocks or place.task.future._is_wanted())
            if place is not None and wanted:
                # It is in both for a moment, and never in neither: an interrupted decision fails what is in either.
                accepted = self.taken_in(place.task)
                self.places.pop(number, None)
                heappop(self._order)
                place.leave()
                return accepted
            self.places.pop(number, None)
            heappop(self._order)
        return None

    def fill(self) -> list[Resolution]:
        """Accept as many as there is room for; return what is to be run without the lock."""
        accepted = self.next() if self.places else None
        return [] if accepted is None else self._pool.decide(accepted)

    def refuse_all(self) -> list[Resolution]:
        """Refuse all tasks, because the pool accepts no more; return what tells those that wait in event loops."""
        pool = self._pool
        told: list[Resolution] = []
        for number, place in list(self.places.items()):
            if number in pool.tasks:
                continue  # accepting it was interrupted
            error = pool.refusal()
            self.places.pop(number, None)
            place.leave(error)
            if not place.blocks:
                owe(pool.untold, place.task, error)
                told.append(Telling(pool.untold, place.task))
        return told

    def wait(self, place: Place) -> None:
        """Wait until a task that had to wait is accepted. Without the lock.

        Raises:
            PoolBroken, RuntimeError: it was refused.
        """
        gate = place.gate
        if gate is not None:
            interruptible.acquire(gate)
        if place.error is not None:
            raise place.error

    def abandon_in_forked_child(self) -> dict[int, Task]:
        """Let go in a process that was forked; return the tasks, whose recipients are still to be told."""
        places, self.places = self.places, {}
        for place in places.values():
            place.leave(outcomes.inherited())  # a signal handler may have forked amid its thread's wait
        return {number: place.task for number, place in places.items()}
