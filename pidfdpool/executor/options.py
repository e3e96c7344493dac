"""`pool.options(...)`: a view of an executor that submits tasks with other options.

A view is immutable and small: a reference to the executor, and a refined Policy. It can be kept, shared between
threads and refined again. It does not own the pool: it cannot shut the pool down, but it keeps the executor alive.
"""

from __future__ import annotations

import concurrent.futures
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, Self, TypeVar, Unpack

import pidfdpool
from pidfdpool import checks
from pidfdpool.executor import arguments, async_calls, pool_submission
from pidfdpool.executor.futures import Future
from pidfdpool.executor.maps import Maps
from pidfdpool.scheduler.policy import Policy, TaskOptions
from pidfdpool.typed import Protocol

if TYPE_CHECKING:
    from pidfdpool.executor.open_maps import Map
    from pidfdpool.loop.pool import Pool
    from pidfdpool.loop.task import Recipient

P = ParamSpec("P")
T = TypeVar("T")


class Executor(async_calls.Executor, Protocol):
    """What a view needs of its executor."""

    _policy: Policy

    def _register_map(self, adaptive_map: Map) -> tuple[int, Pool]:
        """As `map_submission.Submitter` does."""


class Options(Maps, concurrent.futures.Executor):
    """The same pool, with other options for the tasks that are submitted through this view. Made by `options()`.

    It can be used wherever an executor can: `loop.run_in_executor(pool.options(timeout=5), fn)`. Thread-safe. In a
    forked child it uses a pool of the child's own, as the executor that it was made of does.
    """

    __slots__ = ("_executor", "_policy")

    _executor: Executor
    _policy: Policy

    def __init__(self, executor: Executor, policy: Policy) -> None:
        object.__setattr__(self, "_executor", executor)
        object.__setattr__(self, "_policy", policy)

    def __setattr__(self, name: str, _value: object) -> NoReturn:
        raise AttributeError(f"cannot set {name!r}: a view of a pool does not change. Make another with options()")

    def options(self, **options: Unpack[TaskOptions]) -> Options:
        """Return another view. Options that are not given stay as they are in this one.

        Raises:
            TypeError, ValueError: there is no such option, or its value makes no sense; see `Policy`.
        """
        return Options(self._executor, self._policy.refined(TaskOptions(**options)))

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As `PidfdPoolExecutor.submit`, with these options. All keywords are those of fn."""
        future: Future[T] = Future() if not self._policy.context_vars else pool_submission.context_future()
        self._executor._submit_for(future, self._policy, fn, args, kwargs, wait=True)
        return future

    async def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """As `PidfdPoolExecutor.run`, with these options."""
        result: T = await async_calls.run(self._policy, self._executor, fn, args, kwargs)
        return result

    def stream(self, fn: Callable[..., Iterable[T]], /, *args: Any, buffersize: int = 1000) -> pidfdpool.Stream[T]:
        """As `PidfdPoolExecutor.stream`, with these options."""
        from pidfdpool.executor import stream

        return stream.open_stream(self, fn, args, buffersize)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: a view does not own the pool. Shut down the executor that the view was made of."""

    async def aclose(self, *, cancel_futures: bool = False) -> None:
        """Do nothing, as `shutdown`."""

    async def __aenter__(self) -> Self:
        """Return the view. Leaving `async with` does nothing."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Do nothing, as `aclose`."""

    def _submit_for(
        self, recipient: Recipient, policy: Policy, fn: Any, args: Any, kwargs: Any, *, wait: bool
    ) -> None:
        self._executor._submit_for(recipient, policy, fn, args, kwargs, wait=wait)

    def _sizes_chunks(self) -> bool:
        return self._policy.sizes_chunks and getattr(self.submit, "__func__", None) is _OWN_SUBMIT

    def _register_map(self, adaptive_map: Map) -> tuple[int, Pool]:
        return self._executor._register_map(adaptive_map)

    def _submitter_ref(self, lost: Callable[[Any], object] | None = None) -> Callable[[], Options | None]:
        executor, policy = weakref.ref(self._executor, lost), self._policy

        def find() -> Options | None:
            alive = executor()
            return None if alive is None else Options(alive, policy)

        return find

    def __copy__(self) -> Self:
        """Return the view itself, because it does not change."""
        return self

    def __repr__(self) -> str:
        """Show the options that differ from those of the executor. Takes no lock."""
        try:
            ours, theirs = self._policy, self._executor._policy
            changed = [
                name
                for name in TaskOptions.__annotations__
                if not arguments.is_same(getattr(ours, name), getattr(theirs, name))
            ]
            rules = ", ".join(f"{name}={checks.short_repr(getattr(ours, name))}" for name in changed)
            return f"<options({rules}) of {self._executor!r}>"
        except AttributeError:
            return f"<{type(self).__name__} not initialized>"


_OWN_SUBMIT = Options.submit
arguments.list_options(Options.options, TaskOptions)
