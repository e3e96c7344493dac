"""What a `SerialExecutor` and its views have in common: every way to make calls, with the options of one policy.

All of it runs in the caller's thread; `run` and `amap` in that of the event loop, which waits meanwhile.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Literal, ParamSpec, Self, TypeVar, Unpack

from pidfdpool import checks
from pidfdpool.executor import arguments
from pidfdpool.executor.map_request import MapRequest
from pidfdpool.executor.serial_calls import SerialCalls
from pidfdpool.executor.serial_future import SerialFuture
from pidfdpool.executor.serial_maps import SerialMap
from pidfdpool.scheduler.policy import Policy, TaskOptions

P = ParamSpec("P")
T = TypeVar("T")


class SerialView(concurrent.futures.Executor):
    """A `SerialExecutor` with other options for calls. Made by `options()`. Immutable and thread-safe."""

    _calls: SerialCalls
    _policy: Policy

    def __init__(self, calls: SerialCalls, policy: Policy) -> None:
        object.__setattr__(self, "_calls", calls)
        object.__setattr__(self, "_policy", policy)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f"cannot set {name!r}: a view of an executor does not change. Make another with options()"
        )

    def options(self, **options: Unpack[TaskOptions]) -> SerialView:
        """Return a view with other options for calls. Options that are not given stay as they are.

        Raises:
            TypeError, ValueError: there is no such option, or its value makes no sense; see `Policy`.
        """
        return SerialView(self._calls, self._policy.refined(TaskOptions(**options)))

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> SerialFuture[T]:
        """Make the call fn(*args, **kwargs) now, and return its future, which is done.

        Raises:
            PoolBroken: the preload or the initializer has failed before; `__cause__` says how.
            RuntimeError: the executor is shut down.
            KeyboardInterrupt: Ctrl-C has interrupted the call; or what another signal handler has raised.
        """
        return self._calls.submit(self._policy, (fn, args, kwargs))

    async def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Make the call and return its result. The event loop waits meanwhile.

        Raises:
            PoolBroken, RuntimeError: as `submit`; and what fn raises.
        """
        return self.submit(fn, *args, **kwargs).result()

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        return_exceptions: bool = False,
        star: bool = False,
    ) -> Iterator[Any]:
        """Return an iterator over fn(*call) for each call of zip(*iterables), in order. `map_unordered` is the same.

        Args:
            fn: a callable that takes as many arguments as there are iterables.
            iterables: read now, and all calls are made now; with a buffersize, as results are taken.
            timeout: has no effect: each result is there when it is asked for.
            chunksize: has no effect.
            buffersize: calls to make ahead of the next result. Default: all.
            return_exceptions: whether to give a `pidfdpool.Outcome` for each call, and go on after one that fails.
            star: whether there is one iterable, each item of which is a tuple of arguments.

        Raises:
            TypeError, ValueError: an argument makes no sense; the message names it and its value.
        """
        how = timeout, chunksize, buffersize, return_exceptions, star
        return self._map(fn, iterables, *how).results()

    map_unordered = map  # noqa: A003  it is the method that is meant: results come in the order of the calls

    def amap(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any] | AsyncIterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        return_exceptions: bool = False,
        star: bool = False,
    ) -> AsyncIterator[Any]:
        """As `map`, but return an asynchronous iterator. The iterables may be asynchronous, too.

        `amap_unordered` is the same.
        With an asynchronous one each call is made when its result is asked for.
        """
        how = timeout, chunksize, buffersize, return_exceptions, star
        return self._map(fn, iterables, *how).async_results()

    amap_unordered = amap

    def _map(
        self,
        fn: Callable[..., Any],
        iterables: tuple[Any, ...],
        timeout: float | None,
        chunksize: int | None,
        buffersize: int | None,
        return_exceptions: bool,
        star: bool,
    ) -> SerialMap:
        sizes: dict[str, Any] = {"timeout": timeout, "chunksize": chunksize, "buffersize": buffersize}
        request = MapRequest(fn, iterables, return_exceptions=return_exceptions, star=star, **sizes)
        return SerialMap(self.submit, request)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: a view does not own the executor."""

    async def aclose(self, *, cancel_futures: bool = False) -> None:
        """As `shutdown`."""
        self.shutdown(cancel_futures=cancel_futures)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> Literal[False]:
        """As `shutdown`."""
        self.shutdown()
        return False

    def __repr__(self) -> str:
        """Show the options that differ from the defaults."""
        if not hasattr(self, "_policy"):
            return f"<{type(self).__name__} not initialized>"
        ours, plain = self._policy, Policy(self._policy.max_workers)
        changed = [
            name
            for name in TaskOptions.__annotations__
            if not arguments.is_same(getattr(ours, name), getattr(plain, name))
        ]
        rules = ", ".join(f"{name}={checks.short_repr(getattr(ours, name))}" for name in changed)
        return f"<options({rules}) of a SerialExecutor>"


arguments.list_options(SerialView.options, TaskOptions)
