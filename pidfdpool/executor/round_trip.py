"""Sends calls, results and exceptions through the pickling that lies between host and workers, within one process.

For a `SerialExecutor` with check_pickling=True, on the thread that submits. What a worker would get of a call is a
copy as it was at the submit, and what the host would get of a result is a copy, too. What cannot be sent is refused
with the error that a pool has for it.

Functions and classes of `__main__` are not copied: a copy of a class could not be told from the class, and what
belongs to the class would get the copy's globals. So calls see the globals of this process, and not a worker's.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from pidfdpool.executor.unsendable import describe_pickling_error
from pidfdpool.loop import held_arguments, outcomes
from pidfdpool.serialization import payload
from pidfdpool.worker import tracebacks

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidfdpool.loop.held_arguments import Call
    from pidfdpool.transport.framing import Buffer

_HERE = payload.InheritedMain()  # all that `__main__` holds is known to this process


class RoundTrip:
    """The way to workers of one kind of template, and back.

    forked: the template would be a fork of this process.
    """

    def __init__(self, *, forked: bool) -> None:
        self._shared = payload.SharedMain(sys.modules.get("__main__")) if forked else None

    def check_start(self, initializer: object) -> None:
        """Raise what a pool would fail with because the initializer or its arguments cannot be sent to workers."""
        if self._shared is not None:
            return
        if sys.platform != "linux":
            payload.dumps(initializer)
            return
        from pidfdpool.serialization import inherited  # multiprocessing's locks can be sent at a start, and only then

        try:
            _, descriptors = inherited.capture(initializer)
        except inherited.NeedsFork:
            return
        for fd in descriptors:
            os.close(fd)

    def sent(self, call: Call) -> SentCall:
        """Return a call as it is now, or raise the error that a pool has if it cannot be sent."""
        function, arguments, keywords = call
        refused = None
        try:
            payload.dumps(call, self._shared)
        except Exception as error:
            refused = describe_pickling_error(error, function, arguments, keywords, self._shared)
        finally:
            held_arguments.let_go()
        if refused is None:
            return SentCall(call)
        raise refused

    def result(self, value: Any) -> Any:
        """Return the result as the host would get it.

        Raises:
            PayloadError, MemoryError: it cannot be rebuilt.
            BaseException: it cannot be pickled.
        """
        try:
            buffers = payload.dumps(value, _HERE)
        except BaseException as error:
            failed = self.error(error, value)
        else:
            try:
                return outcomes.load_result(buffers)
            finally:
                held_arguments.let_go()
        raise failed

    def error(self, raised: BaseException, result: object = tracebacks.NO_RESULT) -> BaseException:
        """Return the exception as the host would get it. result: what could not be pickled, if it was that."""
        return outcomes.load_error(tracebacks.dump_error(raised, _HERE, result))


class SentCall:
    """A call as it was at its submit. Each `load` makes it anew, as each attempt does in a worker."""

    __slots__ = ("_buffers", "_function", "_rest")

    def __init__(self, call: Call) -> None:
        self._function, arguments, keywords = call
        # By value a call may travel though it uses what cannot be pickled, because workers get that in another way.
        # Then the function, or all of the call, is this process's own.
        self._buffers = _dumped(call) or _dumped((None, arguments, keywords))
        self._rest = None if self._buffers is not None else (arguments, keywords)

    def load(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        """Return function, arguments and keyword arguments. Raises what the code of these objects raises."""
        if self._buffers is None:
            assert self._rest is not None
            return self._function, *self._rest
        try:
            function, arguments, keywords = payload.load_result(self._buffers)
        finally:
            held_arguments.let_go()
        return self._function if function is None else function, arguments, keywords


def _dumped(value: object) -> list[Buffer] | None:
    try:
        return payload.dumps(value, payload.SharedMain(sys.modules.get("__main__")))
    except Exception:
        return None
