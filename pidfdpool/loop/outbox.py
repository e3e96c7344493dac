"""What is to run without the pool's lock: resolutions of futures, reports of deaths, records for the log.

The thread that has decided runs these, in the order of the decisions. Two things are left to the pool thread: what
the leader must not run (see `leader`), and all that follows a resolution that raised. A resolution raises only what a
signal handler has raised in it.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from pidfdpool.loop.resolutions import Delivery, is_quickly_rebuilt
from pidfdpool.typed import Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pidfdpool.loop.poller import Poller
    from pidfdpool.loop.resolutions import Resolution
    from pidfdpool.loop.task import Task


class _Pool(Protocol):
    """What an outbox needs to know of its pool."""

    poller: Poller
    closed: bool


class Outbox:
    """Runs resolutions, and keeps those that are left to the pool thread. Thread-safe; no method takes a lock."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self.left: deque[Resolution] = deque()  # for the pool thread
        self.leader: int | None = None  # the leader's thread, while it serves channels; or an event loop's
        self.in_loop: bool = False  # it is an event loop's

    @property
    def in_leader(self) -> bool:
        """Whether the caller is the leader, and is serving channels."""
        return self.leader == threading.get_ident()

    def must_leave(self, task: Task) -> bool:
        """Return whether the leader must leave resolving this task's future to the pool thread.

        An event loop must not be held up, so it leaves whatever may take long or call anything to be rebuilt.
        """
        if self.left or task.future._has_callbacks():
            return True
        return self.in_loop and not is_quickly_rebuilt(task.verdict)

    def run(self, resolutions: Sequence[Resolution]) -> None:
        """Run resolutions, without the pool's lock. What cannot be run here is left to the pool thread.

        That is what the leader must not run; and what comes behind one that raises, because a signal handler did.
        """
        if not resolutions:
            return
        done, leads = 0, self.in_leader
        try:
            for resolution in resolutions:
                if leads and (not isinstance(resolution, Delivery) or self.must_leave(resolution.task)):
                    break
                resolution()
                done += 1
        finally:
            if done < len(resolutions):
                self.leave(resolutions[done:])

    def leave(self, resolutions: Sequence[Resolution]) -> None:
        """Have resolutions run by the pool thread; at once, if it has ended. From any thread."""
        self.left.extend(resolutions)
        if self._pool.closed:
            self.finish()
        else:
            self._pool.poller.wake()

    def run_left(self) -> None:
        """Run what was left, in its order. In the pool thread."""
        while True:
            try:
                resolution = self.left[0]
            except IndexError:
                return
            resolution()
            with suppress(ValueError):  # at the pool's end another thread may be at them, too: see `leave`
                self.left.remove(resolution)  # not before: what comes after it must not overtake it

    def finish(self) -> None:
        """Run what was left, whatever each of it raises: there is nobody to leave it to any more."""
        while self.left:
            with suppress(BaseException):
                self.left.popleft()()

    def abandon_in_forked_child(self) -> None:
        """Forget everything in a process that was forked: the parent runs it."""
        self.left.clear()
        self.leader, self.in_loop = None, False
