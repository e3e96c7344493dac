"""Which thread submits the chunks of a map whose sizes the pool chooses: one at a time.

`adaptive_map` and `bounded_map` decide what is submitted.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING

from pidfdpool.process import interruptible, locks

if TYPE_CHECKING:
    from collections.abc import Callable


class Turns:
    """Has one thread at a time submit chunks of a map. Thread-safe.

    The pool thread never waits for its turn: it leaves a note for the thread that has the turn, and that thread looks
    for a note when its turn is over.
    """

    def __init__(self) -> None:
        self._lock = locks.reentrant()  # it tells whether a signal handler has interrupted the owner's turn
        self._context = copy_context()  # for arguments whose own code pickles them, later and in the pool thread
        self.wanted: bool = False  # the note: there is something to submit

    @property
    def is_interrupted(self) -> bool:
        """Whether this code has interrupted a turn of its own thread, so that the turn cannot end before it."""
        owned: bool = self._lock._is_owned()
        return owned

    def take(self, submit: Callable[[], None], failed: Callable[[BaseException], None], *, wait: bool) -> bool:
        """Call `submit` while no other thread does that. Return whether this thread had the turn.

        If another thread has it: do nothing, or with `wait` wait for it. If this thread itself was interrupted
        in its turn (by a signal handler, say), it goes on with it afterwards. failed: called with what `submit`
        raises, because calls may be lost then, and the consumer must not miss that.
        """
        lock = self._lock
        if lock._is_owned():
            self.wanted = True
            return False
        had = False
        while (wait or self.wanted) and (lock.acquire(False) or (wait and interruptible.acquire(lock))):
            wait, self.wanted, had = False, False, True
            try:
                self._context.run(submit)
            except BaseException as error:
                failed(error)
                raise
            finally:
                lock.release()
        return had

    def forget_in_forked_child(self) -> None:
        """Forget whose turn it is, in a forked child: that thread was perhaps not copied."""
        self._lock, self._context = locks.reentrant(), self._context.copy()  # a context is entered once at a time
