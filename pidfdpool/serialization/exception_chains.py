"""An exception with those that hang on it: its cause, its context, the members of a group, and theirs in turn.

A traceback holds the frames that the exception came through, and a frame holds every local variable. If one of these
is the exception itself, nothing of it is let go of until the garbage collector runs, which may be much later: it
counts objects, and not their size.
"""

from __future__ import annotations

from pidfdpool.process import describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_fields = BaseException.__dict__  # not by plain access: a class may have put something else in their place
_members = BaseExceptionGroup.__dict__["exceptions"]


def chained(error: BaseException) -> Iterator[BaseException]:
    """Return an iterator over the exception and all that hang on it, each once."""
    waiting = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen.add(id(each))
            further = _fields["__cause__"].__get__(each), _fields["__context__"].__get__(each)
            waiting.extend(other for other in further if other is not None)
            if issubclass(type(each), BaseExceptionGroup):  # not isinstance, which asks the exception
                waiting.extend(_members.__get__(each))
            yield each


def drop_tracebacks(error: BaseException) -> None:
    """Let go of the frames that the exception and all that hang on it came through."""
    for each in chained(error):
        _fields["__traceback__"].__set__(each, None)


def with_cause(error: BaseException, cause: BaseException) -> BaseException:
    """Return the exception, whose `__cause__` is set even if its class refuses assignment, as a frozen dataclass."""
    _fields["__cause__"].__set__(error, cause)
    return error


def format_exception(error: BaseException) -> str:
    """Return the traceback of an exception as text, as the interpreter would print it. Raises nothing.

    If an attribute or a linked exception raises while it is formatted, the text covers this exception alone.
    """
    import traceback

    trace = _fields["__traceback__"].__get__(error)
    try:
        return "".join(traceback.format_exception(type(error), error, trace))
    except BaseException:
        stack = "".join(traceback.format_tb(trace))
        return f"Traceback (most recent call last):\n{stack}{describe.said(error)}\n"
