"""What a worker wrote of a task, and how the host rebuilds it: the result, or the exception that the task raised.

Rebuilding runs code of the user's, so nothing here is called while the pool's lock is held.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pidfdpool.errors import PayloadError, PayloadTooLarge
from pidfdpool.process import describe
from pidfdpool.serialization import payload
from pidfdpool.transport import framing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pidfdpool.scheduler.policy import Policy
    from pidfdpool.transport.framing import Buffer, Frame


class Outcome:
    """What a worker wrote of a task. `error` is there already if it had to be looked at, to decide on a retry."""

    __slots__ = ("buffers", "error", "kind")

    def __init__(self, frame: Frame) -> None:
        self.kind: int = frame.kind
        self.buffers: list[Buffer] = frame.buffers  # its own: those in a segment are let go of when it is read
        frame.buffers = []
        self.error: BaseException | None = None

    def matches(self, policy: Policy) -> bool:
        """Return whether it is an exception after which the task is to be tried again. Rebuilds the exception."""
        if self.kind != framing.ERROR or not policy.retries_errors:
            return False
        self.error = load_error(self.buffers)
        return matches(self.error, policy)


def matches(error: BaseException | None, policy: Policy) -> bool:
    """Return whether a task that raised this may be tried again."""
    try:
        return isinstance(error, policy.retry_on)
    except BaseException:  # a metaclass raised it, so the type of the object cannot be checked
        return False


def load(answer: Frame | Outcome) -> tuple[Any, BaseException | None]:
    """Return the result or the error that a worker wrote, and let go of its buffers before that is told."""
    buffers, answer.buffers = answer.buffers, []
    if answer.kind == framing.ERROR:
        known = answer.error if type(answer) is Outcome else None
        return None, load_error(buffers) if known is None else known
    try:
        return payload.load_result(buffers), None
    except BaseException as failure:
        return None, _failed_to_load(buffers, failure)


def _failed_to_load(buffers: Sequence[Buffer], failure: BaseException) -> PayloadError:
    """Return the error of a result that cannot be had here. failure: what its rebuilding has raised."""
    if type(buffers) is framing.MissingBuffers:
        return _too_large("result", "receive", buffers.size)
    if issubclass(type(failure), MemoryError):
        return _too_large("result", "rebuild", sum(map(len, buffers)))
    return unreadable_result(failure)


def unreadable_result(failure: BaseException) -> PayloadError:
    """Return the error of a result whose rebuilding raised this."""
    kind = PayloadTooLarge if issubclass(type(failure), MemoryError) else PayloadError
    error = kind(f"the result cannot be unpickled in the host: {describe.error_text(failure)}")
    error.__cause__ = failure
    return error


def load_result(buffers: Sequence[Buffer]) -> Any:
    """Return the result that a worker wrote.

    Raises:
        PayloadError: it cannot be rebuilt here, or there is not enough memory.
    """
    try:
        return payload.load_result(buffers)
    except BaseException as failure:
        error = _failed_to_load(buffers, failure)
    raise error


def load_error(buffers: list[Buffer]) -> BaseException:
    """Return the exception that a worker or the template wrote, or one that says why it cannot be had."""
    if type(buffers) is framing.MissingBuffers:
        return _too_large("exception", "receive", buffers.size)
    try:
        return payload.load_error(buffers)
    except MemoryError:
        return _too_large("exception", "rebuild", sum(map(len, buffers)))


def _too_large(what: str, to_do: str, size: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"the host (pid {os.getpid()}) has not enough memory to {to_do} the {what} of this task, which came in "
        f"{size / 1e6:.3g} MB. The worker goes on. Return less, return it in parts, or write it to a file."
    )
