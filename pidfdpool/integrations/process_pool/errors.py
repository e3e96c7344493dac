"""How an error of the executor is told to code that knows `multiprocessing.Pool`."""

from __future__ import annotations

from concurrent.futures import CancelledError
from multiprocessing import pool as standard
from typing import Any

import pidfdpool
from pidfdpool import checks

# Type checkers do not know these two.
MaybeEncodingError: Any = vars(standard)["MaybeEncodingError"]
_RemoteTraceback: Any = vars(standard)["RemoteTraceback"]

# What the executor notes on an exception of a result that cannot be pickled.
_NOTE = "the result cannot be pickled: "


def translated(error: BaseException) -> BaseException:
    """Return what `get` raises for an error of a future.

    An exception that a call raised stays what it is; its cause becomes a RemoteTraceback. If the result or the
    exception could not be pickled, it is a MaybeEncodingError. A worker's death stays WorkerCrashed, which says how
    the worker died. So does an exception whose own code does not let anybody look at it.
    """
    try:
        return _translated(error)
    except Exception:
        return error


def _translated(error: BaseException) -> BaseException:
    if type(error) is CancelledError:
        return CancelledError("the pool was terminated before this was begun")
    for note in getattr(error, "__notes__", ()):
        if type(note) is str and note.startswith(_NOTE):
            return _encoding_error(error, note.removeprefix(_NOTE))
    text = getattr(error.__cause__, "tb", None)
    if isinstance(error, pidfdpool.CallNotSendable) or type(text) is not str:
        return error
    if type(error) is pidfdpool.PayloadError:  # of an exception, which only a worker has had
        return _encoding_error(error, "an exception")
    error.__cause__ = _RemoteTraceback(text)
    return error


def _encoding_error(error: BaseException, value: str) -> BaseException:
    shown = checks.short_repr(error)  # never raises, as the repr() of an exception of the user's may
    made: BaseException = MaybeEncodingError(_Text(repr(error) if shown.endswith("...") else shown), _Text(value))
    return made


class _Text(str):
    """A text that is its own repr: the repr of an object that only a worker has had."""

    __slots__ = ()
    __repr__ = str.__str__
