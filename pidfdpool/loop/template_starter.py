"""Starts templates, without the pool's lock: it takes a while. What came of it is an event like others.

The first submit starts the first template itself. If it is forked from the host, that is done while the pool thread
does not exist yet: a host without threads is forked without threads. Later ones are started by the pool thread.
"""

from __future__ import annotations

import errno
import threading
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from pidfdpool.errors import TemplateError
from pidfdpool.loop.links import TemplateLink
from pidfdpool.process import describe, hygiene, interruptible, native
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import State, Template
from pidfdpool.template import client

if TYPE_CHECKING:
    from pidfdpool.loop.pool import Pool
    from pidfdpool.loop.pool_thread import PoolThread
    from pidfdpool.template.client import SignalMask
    from pidfdpool.template.connection import TemplateConnection
    from pidfdpool.template.recipe import Recipe

_NO_PROGRAM = (
    "This process cannot start that program. If it has changed its root directory or its user, make the first submit "
    "before that, or use mp_context='fork'."
)
_REFUSED = (
    "This process may not fork (clone), or start programs (execve), perhaps in a sandbox. If it may only fork, use "
    "mp_context='fork'."
)
_ADVICE = {
    errno.ENOENT: _NO_PROGRAM,
    errno.EACCES: _NO_PROGRAM,
    errno.ENOTDIR: _NO_PROGRAM,
    errno.ELOOP: _NO_PROGRAM,
    errno.ENOEXEC: "It is no program. Name Python with multiprocessing.set_executable(), or use mp_context='fork'.",
    errno.EPERM: _REFUSED,
    errno.ENOSYS: _REFUSED,
    errno.E2BIG: "The environment, a variable in it, or sys.path is larger than what a program can be given. Make it "
    "smaller, or use mp_context='fork'.",
}


class Starter:
    """What a pool's templates, and its thread, are started by."""

    def __init__(self, pool: Pool, thread: PoolThread) -> None:
        self._pool = pool
        self._thread = thread
        self.wanted = False  # the machine has asked for a template; guarded by the pool's lock, as the next one is
        self._by: int | None = None  # the thread of the user's that is at the first start
        self._first_over = interruptible.Event()

    def if_wanted(self) -> None:
        """Start a template if the machine has asked for one. In the pool thread."""
        with self._pool.lock:
            if not self._claim():
                return
        self._start()

    def claim_first(self) -> bool:
        """Return whether it is for the caller to call `first`. The caller has the lock, and all signals blocked."""
        if self._thread.started or self._by is not None:
            return False
        self._by = threading.get_ident()
        self._first_over.clear()  # set by one that found no thread to be had
        return True

    def wait(self) -> None:
        """Wait until a first start that is under way in another thread is over."""
        if self._by not in (None, threading.get_ident()):
            self._first_over.wait()

    def prestart(self, count: int, *, wait: bool, timeout: float | None) -> int:
        """Have so many workers started; return how many are ready, after waiting for them if that is asked for.

        Waits no longer once some are ready and no other is on its way: the system allows no more, or they died.

        Raises:
            PoolBroken: the pool is broken, or breaks meanwhile.
            RuntimeError: it is shut down, or is meanwhile.
        """
        began = time.monotonic()
        with hygiene.signals_blocked() if not self._thread.started else nullcontext() as mask:
            if self._ask_for(count):
                self.first(None, mask)
        return self._await(count, 0.0 if not wait else timeout and timeout - (time.monotonic() - began))

    def _ask_for(self, count: int) -> bool:
        """Return whether it is for the caller to call `first`."""
        pool = self._pool
        if pool._interrupted:
            pool.happen(ev.Prestarted(count))  # later
            return False
        with pool.lock:
            pool.check_open()
            resolutions = pool.decide_guarded(ev.Prestarted(count))
            first = self.claim_first()
        pool.leading.run(resolutions)
        return first

    def _await(self, count: int, timeout: float | None) -> int:
        pool = self._pool
        may_wait = not pool._interrupted and not self._thread.is_current
        steps = interruptible.Steps(timeout)
        with pool.lock:
            pool.awaited += 1
            try:
                while True:
                    pool.check_open()
                    states = pool.machine.states
                    ready = states[State.IDLE] + states[State.BUSY]
                    on_the_way = states[State.STARTING] or pool.machine.template is Template.STARTING or pool._put_off
                    if ready >= min(count, pool.machine.size) or not (may_wait and (on_the_way or not ready)):
                        return ready
                    left = steps.next()
                    if left is not None and left <= 0:
                        return ready
                    pool.readiness.wait(left)
            finally:
                pool.awaited -= 1

    def first(self, number: int | None, mask: SignalMask) -> None:
        """Start the first template and the pool thread. number: the task submitted.

        A handler of the host's that raised between two steps would leave a pool without a thread, which nothing ever
        comes out of. So signals wait, but for the time in which the template comes up.

        number: None: no task was, but workers are wanted.
        mask: what was blocked before.

        Raises:
            RuntimeError: there can be no more threads. The next submit tries again.
            BaseException: a handler raised it.
        """
        with self._pool.lock:
            wanted = self._claim()
        try:
            try:
                if wanted:
                    self._start_interruptible(mask)
            finally:
                self._thread.start_or_end()
        except BaseException:
            if number is not None:
                self._pool.withdraw(number)  # whoever submitted gets no future, so the task must not run
            raise
        finally:
            self._by = None
            self._first_over.set()

    def _claim(self) -> bool:
        """Return whether a start is wanted, and make it the caller's to do. The caller has the lock."""
        wanted, self.wanted = self.wanted, False
        return wanted

    def _start_interruptible(self, mask: SignalMask) -> None:
        try:
            self._start(mask)
        except BaseException:
            self._pool.happen(ev.TemplateLost("its start was interrupted"))
            raise

    def _start(self, mask: SignalMask = None) -> None:
        pool = self._pool
        end, event, cause = try_start(pool.recipe, mask)
        try:
            with pool.lock:
                pool.cause = cause or pool.cause
                if end is not None:
                    pool.template = TemplateLink(end, pool.poller)
                    self._thread.serve_template(pool.template)
                    if pool.recipe.runs_script:
                        pool.template.want_script()  # somebody has come to need it since the start began
                resolutions = pool.decide_guarded(event)
        finally:
            if end is not None:
                end.reap_launcher()  # not before, because the first workers can be forked meanwhile
        pool.leading.run(resolutions)


def try_start(
    recipe: Recipe, mask: SignalMask = None
) -> tuple[TemplateConnection | None, ev.Event, Exception | None]:
    """Return the host's end of a new template or None; what happened; and, where no other would do, the cause.

    What is raised here was raised by a handler of the host's, which a signal has had run in the middle.

    mask: see `client.start`.
    """
    try:
        return client.start(recipe, mask), ev.TemplateUp(), None
    except client.NotSendable as error:
        cause = error.__cause__
        reason = f"the initializer or preload cannot be sent to workers: {describe.repr_of(cause)}"
        return None, ev.TemplateHopeless(reason), cause if isinstance(cause, Exception) else error
    except TemplateError as error:
        return None, ev.TemplateHopeless(f"the template cannot be started: {error}"), error
    except OSError as error:
        if error.errno not in _ADVICE:
            return None, ev.TemplateLost(f"it could not be started: {error}"), None
        reason = f"the template cannot be started: {error}. {_ADVICE[error.errno]}"
        return None, ev.TemplateHopeless(reason), error


def check_startable() -> None:
    """Raise where the thread of a pool that is started now would never get to run.

    A greenlet runs when its thread of the operating system lets it. The main one does, sooner or later; another, of
    gevent's thread pool for instance, may have nothing more to do after this submit.

    Raises:
        RuntimeError: threads are greenlets, and this is not the main thread.
    """
    if native.threads_are_greenlets() and not native.in_main_thread():
        raise RuntimeError(
            "the threads of this process are greenlets (its threading module is patched), and then a pool has to be "
            "started from the main thread: submit something there first. After that any thread may submit."
        )
