"""Handles an exception together with those that it is chained to: cause, context, members of a group, and theirs.

A traceback holds the frames that the exception came through, and a frame holds all its local variables. If one of
these is the exception itself, nothing of it is freed until the garbage collector runs. This may be much later,
because the collector counts objects and not their size.

In host and workers, on any thread. No state. Runs no code of the exceptions, except to format them.
"""

from __future__ import annotations

import sys

from pidfdpool.process import describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_fields = BaseException.__dict__  # not by attribute access, because a class may have replaced these attributes
_members = BaseExceptionGroup.__dict__["exceptions"]


def chained(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception and all that it is chained to, each once."""
    pending = [error]
    seen: set[int] = set()
    while pending:
        each = pending.pop()
        if id(each) not in seen:
            seen.add(id(each))
            linked = _fields["__cause__"].__get__(each), _fields["__context__"].__get__(each)
            pending.extend(other for other in linked if other is not None)
            if issubclass(type(each), BaseExceptionGroup):  # not isinstance, which asks the exception
                pending.extend(_members.__get__(each))
            yield each


def drop_tracebacks(error: BaseException) -> None:
    """Remove the tracebacks of the exception and of all that it is chained to."""
    for each in chained(error):
        _fields["__traceback__"].__set__(each, None)


def pass_over(error: BaseException) -> None:
    """Let go of an error that nobody is to see, because what has failed is tried in another way.

    What a signal handler of the host's has raised meanwhile is raised again: the other way would hide it.
    """
    # Every host of a pool has this module loaded. Workers have no use for it.
    interruptible = sys.modules.get("pidfdpool.process.interruptible")
    if interruptible is not None and interruptible.is_of_handler(error):
        raise error
    drop_tracebacks(error)


def with_cause(error: BaseException, cause: BaseException) -> BaseException:
    """Set the exception's `__cause__` and return it, even if its class, a frozen dataclass say, refuses this."""
    _fields["__cause__"].__set__(error, cause)
    return error


def format_exception(error: BaseException) -> str:
    """Return an exception and its traceback as text, as the interpreter prints them. Raises nothing.

    If an attribute or a chained exception raises while it is formatted, the text covers this exception alone.
    """
    trace = _fields["__traceback__"].__get__(error)
    try:
        import traceback

        return "".join(traceback.format_exception(type(error), error, trace))
    except BaseException:
        return f"Traceback (most recent call last):\n{_format_stack(trace)}{describe.error_text(error)}\n"


def _format_stack(trace: TracebackType | None) -> str:
    """Return a traceback as text. Where it cannot be formatted as usual, without lines of source.

    To format loads modules and reads files. A task may have left no descriptor for that, or no memory.
    """
    try:
        import traceback

        return "".join(traceback.format_tb(trace))
    except BaseException:
        lines = []
        while trace is not None:
            code = trace.tb_frame.f_code
            lines.append(f'  File "{code.co_filename}", line {trace.tb_lineno}, in {code.co_name}\n')
            trace = trace.tb_next
        return "".join(lines)
