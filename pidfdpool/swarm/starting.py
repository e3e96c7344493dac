"""Starts the templates of a swarm: the first one in the thread that calls `Swarm.start`, others in the supervisor's.

The lock is not held meanwhile, because a start takes as long as that of an interpreter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pidfdpool.errors import CallNotSendable, TemplateError
from pidfdpool.loop import template_starter
from pidfdpool.process import hygiene
from pidfdpool.process.native import signal
from pidfdpool.scheduler import events as ev
from pidfdpool.swarm import inputs as ip
from pidfdpool.template import client

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidfdpool.loop.pool_thread import PoolThread
    from pidfdpool.scheduler.events import Event
    from pidfdpool.swarm.processes import Processes
    from pidfdpool.template.client import SignalMask
    from pidfdpool.template.connection import TemplateConnection
    from pidfdpool.template.recipe import Recipe


class Starter:
    """Starts the templates of one swarm.

    Attributes:
        wanted: the machine has asked for one.
    """

    def __init__(self, recipe: Recipe, processes: Processes, lock: Any, decide: Callable[[ip.Input], None]) -> None:
        self.wanted = False
        self._recipe = recipe
        self._processes = processes
        self._lock = lock
        self._decide = decide
        self._awaits_hello = False  # of a template that has been started
        self._by_interpreter = False  # the quicker way has failed

    def start_first(self, thread: PoolThread, begin: Callable[[], None]) -> None:
        """Start the first template and then the thread. In a thread of the user's.

        begin: called when the template is there, before the thread is started.

        Raises:
            CallNotSendable, TemplateError: there can be no template.
            RuntimeError: there can be no thread.
            BaseException: a signal handler raised it. Nothing is left.
        """
        template_starter.check_startable()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            # A handler of the host's that raised between two steps would leave a template without a thread.
            with hygiene.signals_blocked() as mask:
                end, event, cause = self._start(mask)
                if end is None:
                    raise _error_of(event, cause)
                try:
                    with self._lock:
                        self._take(end)
                        begin()
                finally:
                    client.reap_launcher(end, mask)
                thread.start()
        finally:
            # Another thread may have taken a signal, whose handler has raised where the mask was to be restored.
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def go_on(self) -> None:
        """Start a template if one is wanted, and wait for the HELLO of one that was started. In the thread."""
        if self.wanted:
            self.wanted = False
            with hygiene.signals_blocked():
                end, event, _ = self._start(None)
                try:
                    if end is not None:
                        with self._lock:
                            self._take(end)
                finally:
                    if end is not None:
                        client.reap_launcher(end, None)
            self._decide(ip.TemplateUp() if end is not None else _input_of(event))
        if self._awaits_hello:
            self._awaits_hello = False
            self._finish()

    def _start(self, mask: SignalMask) -> tuple[TemplateConnection | None, Event, Exception | None]:
        return template_starter.try_start(self._recipe, mask, by_interpreter=self._by_interpreter)

    def _take(self, end: TemplateConnection) -> None:
        self._processes.take_template(end)
        self._awaits_hello = end.awaited is not None
        if not self._awaits_hello:
            self._processes.watch_template_exit()

    def _finish(self) -> None:
        template = self._processes.template
        assert template is not None
        try:
            client.finish(template.end)
        except (client.EndedEarly, TemplateError, OSError) as error:
            self._by_interpreter = True
            lost = ip.TemplateUnusable if isinstance(error, TemplateError) else ip.TemplateLost
            self._processes.lose(lost(f"the template cannot be started: {error}"))
        else:
            with self._lock:
                self._processes.watch_template_exit()


def _input_of(event: Event) -> ip.TemplateLost | ip.TemplateUnusable:
    """Return what a start that has failed is for the machine of a swarm."""
    if isinstance(event, ev.TemplateUnusable):
        return ip.TemplateUnusable(event.reason)
    assert isinstance(event, ev.TemplateLost)
    return ip.TemplateLost(event.reason)


def _error_of(event: Event, cause: Exception | None) -> Exception:
    """Return the error of a first start that has failed."""
    reason = _input_of(event).reason
    if isinstance(cause, (TemplateError, OSError)) or cause is None:
        error: Exception = TemplateError(reason)
    else:
        error = CallNotSendable(
            reason.replace("the initializer or preload", "target, its args, or the preload callable", 1)
        )
    error.__cause__ = cause
    return error
