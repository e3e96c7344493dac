"""Starts templates. The pool's lock is not held meanwhile, because a start takes as long as that of an interpreter.

The outcome of a start becomes an event for the machine. The thread of the first submit starts the first template. If
that is forked from the host, the pool thread does not exist yet, so a host that has one thread is forked with one
thread. The pool thread starts all later templates.
"""

from __future__ import annotations

import errno
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from pidfdpool.errors import TemplateError
from pidfdpool.loop import teardown
from pidfdpool.loop.template_link import TemplateLink
from pidfdpool.process import describe, hygiene, interruptible, native
from pidfdpool.process.native import signal
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import State, Template
from pidfdpool.template import client

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidfdpool.loop.decisions import Decisions
    from pidfdpool.loop.template_events import TemplateEvents
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


class TemplateStarter:
    """Starts the templates of one pool, and its thread."""

    def __init__(self, core: Decisions, template_events: TemplateEvents) -> None:
        self._core = core
        self._thread = core.thread
        self._template_events = template_events
        self.stillborn: bool = False  # the pool is closed because there is no thread, nor will be
        self._by: int | None = None  # the user's thread that is at the first start; guarded by the pool's lock
        self._first_over = interruptible.Event()
        self._awaits_hello = False  # of a template that has been started; for the pool thread to wait for
        self._by_interpreter = False  # the quicker way has failed

    def start_if_wanted(self) -> None:
        """Start a template if the machine has asked for one, and wait for its HELLO. In the pool thread."""
        while True:
            with self._core.lock:
                wanted, self._core.template_wanted = self._core.template_wanted, False
            if wanted:
                self._start()
            if self._awaits_hello:
                self._awaits_hello = False
                self._finish()  # if it fails, another template may be wanted at once
            elif not wanted:
                return

    def claim_first(self) -> bool:
        """Return whether the caller is to call `start_first`. It has the lock, and all signals blocked."""
        if self._thread.started or self._by is not None:
            return False
        self._by = threading.get_ident()
        self._first_over.clear()  # set by one that found no thread to be had
        return True

    @property
    def is_starting(self) -> bool:
        """Whether a first start is under way, in whatever thread."""
        return self._by is not None

    @property
    def starts_elsewhere(self) -> bool:
        """Whether a first start is under way in another thread."""
        return self._by not in (None, threading.get_ident()) and not self._first_over.is_set()

    def wait_for_first(self) -> None:
        """Wait until a first start that is under way in another thread is over."""
        if self.starts_elsewhere:
            self._first_over.wait()

    def prestart(self, count: int, *, wait: bool, timeout: float | None) -> int:
        """Have `count` workers started; return how many are ready, after waiting for them if `wait` is true.

        Waits no longer once some are ready and no other is on its way: the system allows no more, or they died.

        Raises:
            PoolBroken: the pool is broken, or breaks meanwhile.
            RuntimeError: it is shut down, or is meanwhile.
        """
        began = time.monotonic()
        ask = partial(self._ask_for, count)
        if self._thread.started:
            ask()
        else:
            self.run_first(ask, None)
        return self._await(count, 0.0 if not wait else timeout and timeout - (time.monotonic() - began))

    def run_first(self, ask: Callable[[], bool], number: int | None) -> None:
        """Ask the machine for something, and start the pool if that is for this thread to do.

        A handler of the host's that raised between two steps would leave a pool without a thread, which nothing ever
        comes out of. So signals wait, but for the time in which the template comes up. But a handler runs in the
        main thread whichever thread has taken the signal, and another one may not have blocked it. If it raises, and
        there will be no pool thread, this pool is closed, and the next submit makes another.

        ask: returns whether to call `start_first`: if it has called `claim_first` with success.
        number: as `start_first` has it.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            with hygiene.signals_blocked() as mask:
                if ask():
                    self.start_first(number, mask)
        except BaseException as error:
            if not isinstance(error, Exception) or interruptible.is_of_handler(error):
                self._end_without_thread(error)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)  # the handler may have raised just before that
            if self._by == threading.get_ident():
                self._by = None
                self._first_over.set()

    def _end_without_thread(self, error: BaseException) -> None:
        """End the pool if its start was interrupted where it has no thread, and none that is about to give it one."""
        core = self._core
        with core.lock:
            begun = core.template_wanted or core.tasks or core.machine.template is not Template.DOWN
            if not begun or self.starts_elsewhere or self.stillborn or not self._thread.prevent():
                return
            self.stillborn = True
        self._close(error)

    def _ask_for(self, count: int) -> bool:
        """Return whether it is for the caller to call `start_first`."""
        core = self._core
        if core.is_reentered:
            core.defer(ev.PrestartRequested(count))
            return False
        with core.lock:
            core.check_open()
            resolutions = core.decide_guarded(ev.PrestartRequested(count))
            first = self.claim_first()
        core.outbox.run(resolutions)
        return first

    def _await(self, count: int, timeout: float | None) -> int:
        core = self._core
        may_wait = not core.is_at_work_here
        ready = 0

        def is_over() -> bool:
            nonlocal ready
            with core.lock:
                core.check_open()
                states = core.machine.counts
                ready = states[State.IDLE] + states[State.BUSY]
                starting = states[State.STARTING] or core.machine.template is Template.STARTING
                on_the_way = starting or core.has_deferred
                return bool(ready >= min(count, core.machine.size) or not (may_wait and (on_the_way or not ready)))

        with core.lock:
            core.awaited += 1
        try:
            interruptible.wait(is_over, core.readiness, timeout)
            return ready
        finally:
            with core.lock:
                core.awaited -= 1

    def start_first(self, number: int | None, mask: SignalMask) -> None:
        """Start the first template and the pool thread. All signals are blocked; see `run_first`.

        number: of the task that was submitted; None: none was, but workers are wanted.
        mask: what was blocked before.

        Raises:
            RuntimeError: there can be no more threads. The next submit tries again.
            BaseException: a handler raised it.
        """
        claimed = False
        try:
            try:
                with self._core.lock:
                    claimed, self._core.template_wanted = self._core.template_wanted, False
                if claimed:
                    self._start(mask)
            except BaseException:
                if claimed:
                    self._lose_interrupted()
                raise
            finally:
                self._start_thread_or_end()
        except BaseException:
            if number is not None:
                self._core.handle(ev.Cancelled(number))  # the caller gets no future, so the task must not run
            raise

    def _lose_interrupted(self) -> None:
        """Have the machine ask for another template, whatever there is of this one."""
        self._awaits_hello = False
        with self._core.poller.serving:
            self._template_events.lose(ev.TemplateLost("its start was interrupted"))

    def _start(self, mask: SignalMask = None) -> None:
        core = self._core
        end, event, cause = try_start(core.recipe, mask, by_interpreter=self._by_interpreter)
        try:
            core.relay_logs()
            with core.lock:
                core.resolver.cause = cause or core.resolver.cause
                if end is not None:
                    template = core.dispatcher.template = TemplateLink(end, core.poller)
                    self._template_events.watch(template)
                    self._awaits_hello = end.awaited is not None
                    if not self._awaits_hello:
                        self._template_events.watch_exit(template)
                    if core.recipe.runs_script:
                        template.want_script()  # somebody has come to need it since the start began
                resolutions = core.decide_guarded(event)
        finally:
            if end is not None:
                client.reap_launcher(end, mask)  # not before: it ends meanwhile, and the first workers can be forked
        core.outbox.run(resolutions)

    def _finish(self) -> None:
        """Wait until a template that was started says HELLO, and begin to watch it."""
        core = self._core
        template = core.template
        assert template is not None
        try:
            client.finish(template.end)
        except (client.EndedEarly, TemplateError, OSError) as error:
            event, cause = _failed(error)
            self._by_interpreter = True
            with core.lock:
                core.resolver.cause = cause or core.resolver.cause
            with core.poller.serving:  # a leader may be reading the channels of workers that never come to be
                self._template_events.lose(event)
        else:
            with core.lock:
                self._template_events.watch_exit(template)

    def _start_thread_or_end(self) -> None:
        """Start the pool thread; if there can be none, end the pool, because nothing would resolve its futures.

        Futures that other threads have got meanwhile fail, and the template leaves. The caller has not got the lock.

        Raises:
            RuntimeError: the system allows no further thread.
        """
        try:
            self._thread.start()
        except RuntimeError as error:
            self.stillborn = True
            self._close(error)
            raise

    def _close(self, error: BaseException) -> None:
        teardown.fail_everything(self._core, error)
        with self._core.lock:
            teardown.close_everything(self._core)


def try_start(
    recipe: Recipe, mask: SignalMask = None, *, by_interpreter: bool = False
) -> tuple[TemplateConnection | None, ev.Event, Exception | None]:
    """Return the host's end of a new template or None; what happened; and, where no other would do, the cause.

    What is raised here was raised by a handler of the host's, which a signal has had run in the middle.

    mask, by_interpreter: see `client.start`.
    """
    try:
        return client.start(recipe, mask, by_interpreter=by_interpreter), ev.TemplateUp(), None
    except (client.NotSendable, TemplateError, OSError) as error:
        return None, *_failed(error)


def _failed(error: Exception) -> tuple[ev.TemplateLost | ev.TemplateUnusable, Exception | None]:
    """Return what an error of a start means for the pool, and its cause, where no other start would do better."""
    if isinstance(error, client.EndedEarly):
        return ev.TemplateLost(str(error), starts_otherwise=True), None
    if isinstance(error, client.NotSendable):
        cause = error.__cause__
        reason = f"the initializer or preload cannot be sent to workers: {describe.repr_of(cause)}"
        return ev.TemplateUnusable(reason), cause if isinstance(cause, Exception) else error
    if not isinstance(error, OSError):
        return ev.TemplateUnusable(f"the template cannot be started: {error}"), error
    if error.errno not in _ADVICE:
        return ev.TemplateLost(f"it could not be started: {error}"), None
    reason = f"the template cannot be started: {error}. {_ADVICE[error.errno]}"
    return ev.TemplateUnusable(reason), error


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
