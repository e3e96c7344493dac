"""The thread of a pool: started by the first submit, asleep until something happens, ended when nothing is left.

It blocks all signals, so the host's handlers run where they always ran. Where the host has replaced threads by
greenlets, it is one of them. What it does is in `event_loop`.
"""

from __future__ import annotations

import _thread
import itertools
import sys
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from pidfdpool.process import hygiene, interruptible, native

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidfdpool.loop.outbox import Outbox
    from pidfdpool.loop.poller import Poller

_numbers = itertools.count(1)


class PoolThread:
    """The thread of one pool. Thread-safe."""

    run: Callable[[], None]  # what the thread does; set before it is started

    def __init__(self, poller: Poller, outbox: Outbox) -> None:
        self._poller = poller
        self._outbox = outbox
        self._thread: threading.Thread | None = None  # None as well where it is a greenlet
        self._over = interruptible.Event()
        self._to_tell: list[Callable[[], object]] = []  # of the end
        self._ident: int | None = None
        self._runs = deque((None,))  # taken by the thread when it begins, or by who prevents that
        self.started: bool = False
        self.failure: BaseException | None = None  # why the pool is about to be broken by its thread

    def start(self) -> None:
        """Start the thread, with every signal blocked in it. Idempotent.

        Raises:
            RuntimeError: the system allows no further thread.
        """
        if self.started:
            return
        if native.threads_are_greenlets():
            # It has no signal mask of its own. Nor is it a Thread: a process that the host forks has a copy of it,
            # which `threading` believes to be gone, and complains of when it ends.
            self.started = True
            self._poller.among_greenlets = True
            _thread.start_new_thread(self._run, ())
            return
        # Blocked here as well: if a handler raised in the middle, the thread might run and not be recorded.
        with hygiene.signals_blocked():
            thread = threading.Thread(target=self._run, name=f"pidfdpool-{next(_numbers)}", daemon=True)
            _start(thread)
            self._thread = self._thread or thread
            self.started = True

    def _run(self) -> None:
        try:
            self._runs.pop()
        except IndexError:
            return  # prevented; or a start was interrupted when the thread had begun, and this one is of another
        self._ident = threading.get_ident()
        if not self._poller.among_greenlets:
            self._thread = threading.current_thread()
        self.started = True
        self.run()

    def prevent(self) -> bool:
        """Have the thread never run, after a start that was interrupted; return False if it runs already."""
        try:
            self._runs.pop()
        except IndexError:
            return False
        return True

    @property
    def is_current(self) -> bool:
        """Whether the caller runs in this thread."""
        return self._ident == threading.get_ident()

    @property
    def does_its_work(self) -> bool:
        """Whether the caller runs in this thread, or is the leader, who does its work."""
        return threading.get_ident() in (self._ident, self._outbox.leader)

    def note_end(self) -> None:
        """Let those go on who wait for the end. In this thread, as the last thing that it does."""
        self._over.set()
        self._tell_all()

    @property
    def is_over(self) -> bool:
        """Whether the thread has nothing more to do."""
        return self._over.is_set()

    def tell_end(self, tell: Callable[[], object]) -> None:
        """Call tell() when the thread is about to end, at once if it has come to that. `tell` must not raise."""
        self._to_tell.append(tell)
        if self._over.is_set():  # looked at after it was added, so that either this or `note_end` calls it
            self._tell_all()

    def _tell_all(self) -> None:
        while self._to_tell:
            with suppress(IndexError):  # another thread has taken it
                self._to_tell.pop()()

    def join(self) -> None:
        """Wait until the thread has ended; at once if it was never started, or if the caller does its work."""
        if self.started and not self.does_its_work:
            if self._thread is None:
                self._over.wait()
                return
            steps = interruptible.WaitSteps(None)
            while self._thread.is_alive():
                self._thread.join(steps.next())


def _start(thread: threading.Thread) -> None:
    """Start a thread. What a signal handler raises meanwhile is what is raised here.

    `threading` waits until the thread runs. If that is interrupted, it complains of its own lock (RuntimeError).
    """
    handled, raised = sys.exception(), None
    try:
        thread.start()
    except RuntimeError as error:
        raised = error.__context__
        if raised is None or raised is handled:
            raise
    if raised is not None:
        raise raised
