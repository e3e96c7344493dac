"""The futures that calls on a cluster have: those of the standard library, and more.

Resolved in the thread of dask's client. Thread-safe, as the base class.
"""

from __future__ import annotations

import concurrent.futures
from concurrent.futures.process import _RemoteTraceback
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar

import pidfdpool
from pidfdpool.integrations.dask_cluster import payloads

if TYPE_CHECKING:
    from pidfdpool.integrations.dask_cluster.calls import Made
    from pidfdpool.integrations.dask_cluster.requests import Answer, Key

T = TypeVar("T")


class Sender(Protocol):
    """What sent the request that a future is for."""

    def cancel(self, key: Key) -> bool:
        """Have a request not begin, and drop its answer."""

    def kill(self, key: Key, node: str | None) -> None:
        """Kill a request on its node; None: wherever it is."""


class ClusterFuture(concurrent.futures.Future[T], Generic[T]):
    """The outcome of one call on a cluster. Made by `DaskExecutor` only.

    Attributes:
        node: the address of the dask worker that runs the call, or has run it. None: as far as is known here, it has
            not begun.
        worker: the worker of that node's pool, a `pidfdpool.WorkerName`.
        attempt: the number of the call's attempt, from 1; 0 before the first.
        started_at: when that attempt began, in time.time()'s seconds, by the node's clock.

    That a call has begun is known here when it has run for 0.02 s, or has ended.
    """

    def __init__(self, sender: Sender, *, cancel_kills: bool) -> None:
        super().__init__()
        self._sender = sender
        self._cancel_kills = cancel_kills
        self._key: Key | None = None
        self.node: str | None = None
        self.worker: pidfdpool.WorkerName | None = None
        self.attempt = 0
        self.started_at: float | None = None

    def running(self) -> bool:
        """Return whether the call runs, as far as is known here."""
        return self.node is not None and not self.done()

    def cancel(self) -> bool:
        """Cancel the call if it has not begun; return whether it is cancelled.

        A call that has begun a moment ago, which is not known here yet, goes on, and its result is dropped. With the
        option `cancel_kills` it is killed, and so is one that is known to run.
        """
        if self.running() and not self._cancel_kills:
            return False
        if not self._cancel():
            return False
        if self._cancel_kills and self._key is not None:
            self._sender.kill(self._key, self.node)
        return True

    def _cancel(self) -> bool:
        was_done = self.cancelled()
        if not super().cancel():
            return False
        if not was_done:
            self.set_running_or_notify_cancel()  # nobody else does, and `wait` waits for it
            if self._key is not None:
                self._sender.cancel(self._key)
        return True

    def kill(self) -> bool:
        """End the call: cancel it if it has not begun, otherwise kill the worker that makes it.

        The future of a killed call gets TaskKilled a moment later, unless its result was there before. The call is
        not retried. Return False if the future was done already. Any thread may call it.
        """
        if self.done():
            return False
        if not self.running() and not self._cancel():
            return False
        if self._key is not None:
            self._sender.kill(self._key, self.node)
        return True

    def __repr__(self) -> str:
        """Show the state, and what is known of where it runs."""
        state = "running" if self.running() else self._state.partition("_")[0].lower()
        where = f", attempt {self.attempt} on {self.node}" if self.node is not None else ""
        return f"<{type(self).__name__} at {id(self):#x} state={state}{where}>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        """Raise TypeError: a copy would never be resolved."""
        raise TypeError(f"cannot copy or pickle {type(self).__name__!r} object: copy or send its result() instead")

    # ---- for what sends requests -----------------------------------------------------------------------------

    def _sent(self, key: Key) -> None:
        self._key = key

    def _begun(self, told: dict[str, Any]) -> None:
        worker = told["slot"], told["generation"], told["pid"]
        self._note(told["node"], worker, told["attempt"], told["started_at"])

    def _note(self, node: str, worker: Any, attempt: int, started_at: float | None) -> None:
        self.attempt, self.started_at = attempt, started_at
        self.worker = None if worker is None else pidfdpool.WorkerName(*worker)
        self.node = node

    def _take(self, answer: Answer) -> None:
        """Take the answer. It is opened here, in the client's thread, which runs code of the user's."""
        self._note(answer.node, answer.worker, answer.attempt, answer.started_at)
        if self.done():
            return
        value, error = opened(answer.made[0])
        self._resolve(value, error)

    def _fail(self, error: BaseException) -> None:
        self._resolve(None, error)

    def _resolve(self, value: Any, error: BaseException | None) -> None:
        try:
            if error is None:
                self.set_result(value)
            else:
                self.set_exception(error)
        except concurrent.futures.InvalidStateError:
            pass  # cancelled meanwhile, or resolved by its owner


def opened(made: Made) -> tuple[Any, BaseException | None]:
    """Return the value and the error of a call. What cannot be rebuilt here is an error, too."""
    try:
        loaded = payloads.loads(made.payload)
        if made.ok:
            return loaded, None
        error, text = loaded
    except Exception as failure:
        what = "result" if made.ok else "exception"
        unusable = pidfdpool.PayloadError(
            f"the {what} of a call on the cluster arrived, but cannot be rebuilt here: "
            f"{type(failure).__name__}: {failure}"
        )
        unusable.__cause__ = failure
        return None, unusable
    if error.__cause__ is None and not hasattr(error, "deaths"):
        error.__cause__ = _RemoteTraceback(f'\n"""\n{text}"""')  # type: ignore[arg-type]
    return None, error
