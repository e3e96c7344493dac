"""Checks of the values that users pass. Each raises an error that names the argument and its value. Pure.

A number may be of any type that Python knows (NumPy's, Fraction, Decimal). The checks return an int or a float, which
every function that counts or waits accepts.
"""

from __future__ import annotations

import math
import operator
from _thread import TIMEOUT_MAX
from typing import TYPE_CHECKING, Any

from pidfdpool.process import describe

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_INTEGER = 2**63 - 1  # sys.maxsize, the largest size that Python can count
_MAX_TEXT = 200  # characters of a value in an error
_MAX_BITS = 600  # an integer of more bits is not shown


def short_repr(value: Any) -> str:
    """Return repr(value), cut to 200 characters, for an error. Never raises."""
    if type(value) is int and value.bit_length() > _MAX_BITS:  # Python refuses to convert very many digits to text
        return f"an integer of {value.bit_length()} bits"
    text = describe.repr_of(value)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."


def to_number(value: Any) -> float | None:
    """Return a real number of any type as an int or a float. Infinity: it is too large. None: it is not a number.

    True and False are not numbers here.
    """
    kind = type(value)
    if kind is float:
        return value  # type: ignore[no-any-return]
    if kind is not int:
        if isinstance(value, bool):
            return None
        if not isinstance(value, (int, float)):
            from numbers import Complex, Number, Real

            # Decimal is a Number, but not a Real.
            if not isinstance(value, Real) and (not isinstance(value, Number) or isinstance(value, Complex)):
                return None
    try:
        as_float = float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):  # Decimal's signalling NaN, for example
        return math.nan
    return value if kind is int else as_float


def seconds(name: str, value: Any, *, optional: bool = False, zero: bool = True) -> Any:
    """Return a duration: a finite number, 0 or more. zero=False: more than 0. optional=True: or None."""
    if value is None and optional:
        return None
    number = to_number(value)
    if number is not None and math.isfinite(number) and (number > 0 or (zero and number == 0)):
        return number
    least = "0 or more" if zero else "more than 0"
    wanted = f"a number of seconds, {least}{', or None' if optional else ''}"
    raise _error(number, f"{name} must be {wanted}, not {short_repr(value)}", value)


def wait_time(name: str, value: Any) -> float | None:
    """Return the seconds to wait, as `Future.result` takes them: any number. 0 or less: do not wait. None: for ever.

    A number that is larger than locks can count (292 years) is None, too.
    """
    if value is None:
        return None
    number = to_number(int(value) if isinstance(value, bool) else value)
    if number is None or number != number:
        raise _error(number, f"{name} must be a number of seconds, or None, not {short_repr(value)}", value)
    return None if number >= TIMEOUT_MAX else max(number, -TIMEOUT_MAX)


def _error(number: float | None, message: str, value: Any) -> Exception:
    if number is not None:
        return ValueError(message)
    hint = ". Its total_seconds() is one" if hasattr(value, "total_seconds") else ""
    return TypeError(message + hint)


def integer(
    name: str,
    value: Any,
    *,
    least: int = -MAX_INTEGER,
    most: int = MAX_INTEGER,
    optional: bool = False,
    boolean: bool = False,
) -> Any:
    """Return an integer from `least` to `most`. optional=True: or None. boolean=True: True counts as 1."""
    if value is None and optional:
        return None
    try:
        if isinstance(value, bool) and not boolean:
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name} must be an integer{' or None' if optional else ''}, not {short_repr(value)}"
        ) from None
    if number < least:
        raise ValueError(f"{name} must be >= {least}, not {short_repr(number)}")
    if number > most:
        raise ValueError(f"{name} must be <= {most}, not {short_repr(number)}")
    return number


def boolean(name: str, value: Any) -> None:
    """Check that a value is True or False. Other values, such as 1 or "no", are mistakes."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {short_repr(value)}")


def text(name: str, value: Any, *, known: tuple[str, ...]) -> str:
    """Return a text that is one of these, as a plain string: the value's class may have a comparison of its own."""
    if not isinstance(value, str) or str.__str__(value) not in known:
        raise ValueError(f"{name} must be {' or '.join(map(repr, known))}, not {short_repr(value)}")
    return str.__str__(value)


def exceptions(name: str, value: Any) -> tuple[type[BaseException], ...]:
    """Check an exception class, or a tuple of them, and return the tuple."""
    kinds = value if isinstance(value, tuple) else (value,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"{name} must be an exception class or a tuple of them, not {short_repr(value)}")
    return kinds


def not_above(name: str, value: float | None, limit_name: str, limit: float | None, why: str = "") -> None:
    """Check that one value is not larger than another. None has no limit and is none."""
    if value is not None and limit is not None and value > limit:
        raise ValueError(f"{name} must not exceed {limit_name}: {value!r} > {limit!r}{f' ({why})' if why else ''}")


def log_choice(name: str, value: Any) -> bool | int | tuple[str, ...] | None:
    """Return which records of workers the host gets: a bool or None as they are, a level's number, or loggers' names.

    Raises:
        TypeError, ValueError: it is none of these, there is no such level, or a name is no text.
    """
    if value is None or isinstance(value, bool):
        return value
    wanted = f"{name} must be True, False, None, a level, or names of loggers"
    if isinstance(value, str):
        import logging

        level = logging.getLevelNamesMapping().get(value)
        if level is None:
            known = ", ".join(logging.getLevelNamesMapping())
            hint = f"a level is one of {known}. For a logger of this name, give [{short_repr(value)}]"
            raise ValueError(f"{wanted}, not {short_repr(value)}: {hint}")
        return level
    if hasattr(type(value), "__index__") and not hasattr(type(value), "__len__"):  # NumPy's arrays have both
        level = operator.index(value)
        if not 0 <= level <= MAX_INTEGER:
            raise ValueError(f"{wanted}, not {short_repr(value)}: a level is 0 or more")
        return level
    names = tuple(str.__str__(one) for one in _all_of(value, str, wanted, "is no name"))
    if "" in names:
        raise ValueError(f"{wanted}, not {short_repr(value)}: the name of the root logger is 'root'")
    return names


def _all_of(value: Any, kind: type[Any], wanted: str, problem: str) -> tuple[Any, ...]:
    """Return the items of an iterable, which all have to be of that kind. problem: of one that is not."""
    try:
        items = tuple(value)
    except TypeError:
        raise TypeError(f"{wanted}, not {short_repr(value)}") from None
    for one in items:
        if not isinstance(one, kind):
            raise TypeError(f"{wanted}, not {short_repr(value)}: {short_repr(one)} {problem}")
    return items


def context_vars(name: str, value: Any) -> bool | tuple[Any, ...]:
    """Return the context variables that travel: True for all, or a tuple of them.

    Raises:
        TypeError: it is neither a bool nor an iterable of context variables.
    """
    from contextvars import ContextVar

    wanted = f"{name} must be True, False, or a list of context variables"
    if isinstance(value, bool):
        return value or ()
    if isinstance(value, ContextVar):
        raise TypeError(f"{wanted}, not {short_repr(value)}: for this one alone, give it in a list")
    return _all_of(value, ContextVar, wanted, "is none")


def methods(name: str, value: Any, wanted: tuple[str, ...], kind: str) -> None:
    """Raise TypeError unless the value has these methods. kind: what it is to be like."""
    missing = [method for method in wanted if not callable(getattr(value, method, None))]
    if missing:
        raise TypeError(f"{name} must be like {kind}: {short_repr(value)} has no method {missing[0]}")


def iterator(function: Any, produced: Any) -> Iterator[Any]:
    """Return an iterator over what a function has returned for a stream."""
    try:
        return iter(produced)
    except TypeError:
        raise TypeError(
            f"stream takes a function that returns an iterable, such as a generator; {describe.name_of(function)} "
            f"returned {short_repr(produced)}"
        ) from None
