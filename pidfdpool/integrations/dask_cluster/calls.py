"""What the workers of a node's pool run: one call, from its pickle to the pickle of its outcome.

Runs in these workers, as the function of a task. It loads nothing of dask's. What a call raises is an outcome here
and no error of the task, so the dask worker, which has none of the user's modules, need not rebuild it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pidfdpool
from pidfdpool.integrations.dask_cluster import payloads
from pidfdpool.integrations.dask_cluster.payloads import Payload

if TYPE_CHECKING:
    from collections.abc import Callable

_MISSING = (
    "The workers of the cluster import what a call uses from their own installation: install the module there, send "
    "it by client.upload_file(), or have it sent by value with cloudpickle.register_pickle_by_value(module)."
)

_latest: tuple[bytes, Any] | None = None  # the function that the latest call of a map used, by its pickle


class TryAgain(Exception):
    """The call raised what `retry_on` names, and the pool is to try it again. Never reaches a user."""


class Made(NamedTuple):
    """What became of one call: the pickle of its result, or of its exception with the text of the traceback."""

    ok: bool
    payload: Payload
    seconds: float  # that it took


class Call:
    """One call, as the function of a task. Errors of the pool name it as if it were the user's function."""

    def __init__(
        self, function: Payload | None, arguments: Payload, retry_on: Payload | None, retries: int, name: str = ""
    ) -> None:
        """Describe a call.

        Args:
            function: of a map, whose arguments are a tuple; None: the arguments are (function, args, kwargs).
            arguments: of the call.
            retry_on: the classes of exceptions after which to try again; None: the pool knows all of them.
            retries: how many further attempts there are.
            name: for errors; it is not sent to the worker.
        """
        self._parts = function, arguments, retry_on, retries
        self.__qualname__ = name
        self.__module__ = ""

    def __reduce__(self) -> tuple[Any, ...]:
        """Send what the worker needs."""
        return Call, self._parts

    def __call__(self) -> Made:
        """Make the call.

        Raises:
            TryAgain: the call has raised what it may be tried again for, and there is another attempt.
        """
        function, arguments, retry_on, retries = self._parts
        began = time.perf_counter()
        try:
            call, args, kwargs = _rebuild(function, arguments)
            value = call(*args, **kwargs)
        except BaseException as error:
            if retry_on is not None and _attempts() <= retries and isinstance(error, payloads.loads(retry_on)):
                raise TryAgain from error
            return Made(False, dump_error(error), time.perf_counter() - began)
        took = time.perf_counter() - began
        try:
            return Made(True, payloads.dumps(value), took)
        except Exception as error:
            error.add_note(f"The call has returned {_shown(value)}, which cannot be pickled.")
            return Made(False, dump_error(error), took)


def _rebuild(function: Payload | None, arguments: Payload) -> tuple[Callable[..., Any], tuple[Any, ...], Any]:
    try:
        if function is None:
            call, args, kwargs = payloads.loads(arguments)
            return call, args, kwargs
        return _function(function), payloads.loads(arguments), {}
    except ImportError as error:
        error.add_note(_MISSING)
        raise


def _function(function: Payload) -> Any:
    """Return the function of a map. Its pickle comes with each call, and is opened when another one was before."""
    global _latest  # noqa: PLW0603  a worker does one thing at a time
    if len(function.frames) > 1:  # with buffers, which may be someone else's memory
        return payloads.loads(function)
    data = bytes(function.frames[0])
    if _latest is None or _latest[0] != data:
        _latest = data, payloads.loads(function)
    return _latest[1]


def _attempts() -> int:
    task = pidfdpool.current_task()
    return 1 if task is None else task.attempt


def dump_error(error: BaseException) -> Payload:
    """Pickle an exception, with its traceback as text. One that cannot be pickled is told of in words."""
    from traceback import format_exception

    ours = error.__traceback__
    text = "".join(format_exception(type(error), error, None if ours is None else ours.tb_next))
    error.__traceback__ = None
    try:
        return payloads.dumps((error, text))
    except Exception as failure:
        instead = pidfdpool.PayloadError(
            f"the call has raised {_shown(error)}, which cannot be pickled: {_shown(failure)}"
        )
        return payloads.dumps((instead, text))


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"an object of {type(value).__qualname__}"
    return text if len(text) <= 200 else f"{text[:200]}..."
