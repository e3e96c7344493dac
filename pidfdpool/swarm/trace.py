"""What `Swarm.trace` returns: a context manager that writes a trace of the swarm while its block runs.

The supervisor's thread writes an event to a regular file when it happens; there are few. What may block (a pipe, a
file that the user has opened) is written when the block is left, in the user's thread.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pidfdpool
from pidfdpool import checks
from pidfdpool.executor.tracing.lines import EventLines
from pidfdpool.executor.tracing.sink import Sink
from pidfdpool.process import locks, safe_logging
from pidfdpool.swarm import async_ping
from pidfdpool.swarm.records import Phase
from pidfdpool.swarm.trace_events import SwarmTraceEvents

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pidfdpool.swarm.records import NodeEvent
    from pidfdpool.swarm.supervisor import Supervisor

LAST_EVENTS = 1.0  # seconds; for so long the end waits to be told what has happened in the block

_log = logging.getLogger("pidfdpool.swarm")


def made(supervisor: Supervisor, path: Any, max_events: int) -> SwarmTrace:
    """Return a trace of a swarm. As `Swarm.trace`."""
    return SwarmTrace(supervisor, supervisor.name, path, checks.integer("max_events", max_events, least=1))


class SwarmTrace:
    """A trace of a swarm, which is written from the beginning of its `with` block to its end. Not thread-safe.

    Made by `Swarm.trace` and `AsyncSwarm.trace`. It is used once. In a child that is forked inside the block it
    writes nothing.

    Attributes:
        dropped: how many events it does not have, because there were more than max_events.
        error: why it ends early: what writing has raised. None: it does not.
    """

    def __init__(self, supervisor: Supervisor, name: str, path: Any, max_events: int) -> None:
        self._supervisor, self._name, self._path, self._max_events = supervisor, name, path, max_events
        self._process = os.getpid()
        self._lock = locks.plain()  # held while something is formatted and written; guards all that follows
        self._sink: Sink | None = None
        self._over = True
        self._unsubscribe: Callable[[], None] | None = None
        self._waiting: list[str] = []  # for the end
        self._count = 0  # events, ever
        self.dropped = 0
        self.error: Exception | None = None

    def __enter__(self) -> Self:
        """Open the file and begin.

        Raises:
            OSError: the path cannot be opened or written; the error names it.
            TypeError, ValueError: it is neither a path nor a file that takes text, or the file is closed, or another
                trace of this process writes it.
            RuntimeError: the swarm has ended, or belongs to another process; or this trace was used before.
        """
        if self._sink is not None:
            raise RuntimeError("a trace is used once: call trace() again for another one")
        if self._supervisor.status().phase is Phase.ENDED:
            raise RuntimeError("this swarm has ended")
        sink = self._sink = Sink(self._path)
        try:
            self._begin(sink)
        except BaseException as error:  # also of a signal handler's, after which the file is to be free
            self._give_up()
            if isinstance(error, OSError) and error.errno is not None and error.filename is None:
                raise OSError(error.errno, error.strerror, sink.path) from error
            raise
        return self

    def _begin(self, sink: Sink) -> None:
        began_at = time.time()
        lines = EventLines(began_at, os.getpid())
        self._events = SwarmTraceEvents(lines, self._name, began_at)
        with self._lock:  # what happens meanwhile comes after what is there now
            self._unsubscribe = self._supervisor.subscribe(self._take)
            nodes = self._supervisor.status().nodes
            header = lines.header(
                self._name,
                kind="swarm",
                version=pidfdpool.__version__,
                python=".".join(map(str, sys.version_info[:3])),
                started=began_at,
                max_workers=self._supervisor.size,
                start_method=self._supervisor.start_method,
            )
            sink.write([*header, *lines.track(0, "swarm"), *self._events.present(nodes)])
            self._over = False

    def _give_up(self) -> None:
        self._over = True
        if self._unsubscribe is not None:
            self._unsubscribe()
        if self._sink is not None:
            self._sink.close()

    def _take(self, event: NodeEvent) -> None:
        """Write an event. In the supervisor's thread."""
        with self._lock:
            if not self._over:
                self._add(self._events.of(event))

    def _add(self, lines: Sequence[str]) -> None:
        assert self._sink is not None
        if self._count + len(lines) > self._max_events:
            self.dropped += len(lines)
            return
        self._count += len(lines)
        if self._sink.writes_early:
            self._write(lines)
        else:
            self._waiting += lines

    def _write(self, lines: Sequence[str]) -> None:
        assert self._sink is not None
        try:
            self._sink.write(lines)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """End the trace early. The swarm goes on."""
        assert self._sink is not None
        self.error = error
        self._over = True
        self._sink.close()
        message = "the trace %s ends early, because it cannot be written: %s"
        safe_logging.log(_log, logging.WARNING, message, self._sink.name, error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the trace, and complete the file. It raises nothing if that cannot be written: a warning was logged."""
        if self._is_copied():
            return
        try:
            with suppress(RuntimeError):  # it was not started, or this is its own thread
                self._supervisor.ping(LAST_EVENTS)
        finally:
            self._end()

    async def __aenter__(self) -> Self:
        """As `__enter__`. It does not wait."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As `__exit__`, without blocking the event loop, on which a callback of the swarm's may wait."""
        if self._is_copied():
            return
        try:
            with suppress(RuntimeError):
                await async_ping.ping(self._supervisor, time.monotonic() + LAST_EVENTS)
        finally:
            self._end()

    def _is_copied(self) -> bool:
        """Return whether this is a forked child, after closing the sink there: the trace is the parent's."""
        if os.getpid() == self._process:
            return False
        if self._sink is not None:
            self._sink.close()  # without the lock, which may have been copied while it was held
        return True

    def _end(self) -> None:
        assert self._unsubscribe is not None
        self._unsubscribe()
        with self._lock:
            if self._over:
                return
            self._add(self._events.finish(time.time()))
            if self.dropped:
                self._waiting.append(self._events.dropped(self.dropped))
            self._write(self._waiting)
            if not self._over:
                self._finish()

    def _finish(self) -> None:
        assert self._sink is not None
        self._over = True
        try:
            self._sink.finish()
        except Exception as error:
            self._fail(error)
        finally:
            self._sink.close()
