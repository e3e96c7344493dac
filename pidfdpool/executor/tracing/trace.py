"""What `PidfdPoolExecutor.trace` returns: a context manager that writes a trace of the pool while its block runs.

It keeps the executor alive; its recorder, which the pool refers to, does not. Used by the thread of the user's block.
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pidfdpool
from pidfdpool.executor.tracing.events import TraceEvents
from pidfdpool.executor.tracing.recorder import Recorder
from pidfdpool.executor.tracing.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pidfdpool.executor.own_pool import OwnPool
    from pidfdpool.loop.snapshots import WorkerInfo
    from pidfdpool.typed import Protocol

    class Traced(Protocol):
        """What a trace needs of its executor."""

        _own: OwnPool

        def workers(self) -> tuple[WorkerInfo, ...]:
            """Return the pool's current workers."""


class Trace:
    """A trace of a pool, which is written from the beginning of its `with` block to its end. Not thread-safe.

    Made by `PidfdPoolExecutor.trace`. It is used once. In a child that is forked inside the block it writes nothing.
    """

    def __init__(self, executor: Any, path: Any, max_events: int) -> None:
        self._executor: Traced = executor
        self._path = path
        self._max_events = max_events
        self._recorder: Recorder | None = None
        self._stop: Callable[[], None] | None = None

    @property
    def dropped(self) -> int:
        """How many attempts of tasks it does not tell of, because there were more than max_events allows."""
        return 0 if self._recorder is None else self._recorder.dropped

    @property
    def error(self) -> Exception | None:
        """Why it ends early: what writing has raised. None: it does not."""
        return None if self._recorder is None else self._recorder.error

    def __enter__(self) -> Self:
        """Open the file and begin.

        Raises:
            OSError: the path cannot be opened or written; the error names it.
            TypeError, ValueError: it is neither a path nor a file that takes text, or the file is closed, or another
                trace of this process writes it.
            PoolBroken, RuntimeError: the pool is broken or shut down; or this trace was used before.
        """
        own = self._executor._own
        if self._recorder is not None:
            raise RuntimeError("a trace is used once: call trace() again for another one")
        own.check_open()
        sink = Sink(self._path)
        try:
            self._begin(sink)
        except BaseException as error:  # also of a signal handler's, after which the file is to be free
            self._give_up(sink)
            if isinstance(error, OSError) and error.errno is not None and error.filename is None:
                raise OSError(error.errno, error.strerror, sink.path) from error
            raise
        return self

    def _begin(self, sink: Sink) -> None:
        own = self._executor._own
        recipe = own.recipe
        preloads = bool(recipe.preload) or recipe.preload_call is not None
        events = TraceEvents(
            time.monotonic(), os.getpid(), initializes=recipe.initializer is not None, preloads=preloads
        )
        recorder = Recorder(events, sink, self._max_events, _memory_of(self._executor))
        recorder.begin(
            events.header(
                os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else "",
                version=pidfdpool.__version__,
                python=".".join(map(str, sys.version_info[:3])),
                started=time.time(),
                max_workers=own.max_workers,
                start_method="fork" if recipe.fork else "exec",
            )
        )
        self._recorder, self._stop = recorder, partial(own.stop_observing, recorder)
        own.observe(recorder)

    def _give_up(self, sink: Sink) -> None:
        """Undo what was begun of entering."""
        stop, self._stop = self._stop, None
        try:
            if stop is not None:
                stop()
        finally:
            if self._recorder is not None:
                self._recorder.abandon()
            sink.close()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """End the trace, and complete the file. It raises nothing if that cannot be written: a warning was logged."""
        stop, self._stop = self._stop, None
        if stop is not None and self._recorder is not None:
            try:
                stop()
            finally:
                self._recorder.finish(time.monotonic())


def _memory_of(executor: Any) -> Callable[[], Iterable[tuple[int, int]]]:
    """Return what measures an executor's workers, without keeping it alive."""
    reference = weakref.ref(executor)

    def measure() -> Iterable[tuple[int, int]]:
        alive = reference()
        return () if alive is None else [(each.slot, each.rss) for each in alive.workers() if each.rss is not None]

    return measure
