"""Checks of values that users pass: each raises an error that names the argument and its value. Pure.

A number may be of any kind that Python knows (NumPy's, Fraction, Decimal); what comes out is an int or a float, which
everything that counts and waits can take.
"""

from __future__ import annotations

import math
import operator
from _thread import TIMEOUT_MAX
from typing import Any

from pidfdpool.process import describe

MOST = 2**63 - 1  # what an integer may be: the largest size that Python itself can count
_SHOWN = 200  # characters of a value
_BITS = 600  # of an integer of so many digits


def shown(value: Any) -> str:
    """Return how an error shows a value: what repr() says, cut short. Never raises."""
    if type(value) is int and value.bit_length() > _BITS:  # of very many digits Python makes no text at all
        return f"an integer of {value.bit_length()} bits"
    text = describe.repr_of(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def real(value: Any) -> float | None:
    """Return a real number of any kind as an int or a float; None: it is no number. Infinity: it is larger than that.

    A truth value is no number here.
    """
    kind = type(value)
    if kind is float:
        return value  # type: ignore[no-any-return]
    if kind is not int:
        if isinstance(value, bool):
            return None
        if not isinstance(value, (int, float)):
            from numbers import Complex, Number, Real

            # Decimal is a Number and none of the others.
            if not isinstance(value, Real) and (not isinstance(value, Number) or isinstance(value, Complex)):
                return None
    try:
        as_float = float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):  # Decimal's signalling NaN, for one
        return math.nan
    return value if kind is int else as_float


def seconds(name: str, value: Any, *, optional: bool = False, zero: bool = True) -> Any:
    """Return a duration: a finite number, 0 or more (zero: False: more than 0); or None where that is optional."""
    if value is None and optional:
        return None
    number = real(value)
    if number is not None and math.isfinite(number) and (number > 0 or (zero and number == 0)):
        return number
    least = "0 or more" if zero else "more than 0"
    wanted = f"a number of seconds, {least}{', or None' if optional else ''}"
    raise _refused(number, f"{name} must be {wanted}, not {shown(value)}", value)


def wait(name: str, value: Any) -> float | None:
    """Return for how many seconds to wait, as `Future.result` takes it: any number; 0 or less: do not wait.

    None: for ever, which is also what a number means that is larger than locks can count (292 years).
    """
    if value is None:
        return None
    number = real(int(value) if isinstance(value, bool) else value)
    if number is None or number != number:
        raise _refused(number, f"{name} must be a number of seconds, or None, not {shown(value)}", value)
    return None if number >= TIMEOUT_MAX else max(number, -TIMEOUT_MAX)


def _refused(number: float | None, message: str, value: Any) -> Exception:
    if number is not None:
        return ValueError(message)
    hint = ". Its total_seconds() is one" if hasattr(value, "total_seconds") else ""
    return TypeError(message + hint)


def integer(
    name: str, value: Any, *, least: int = -MOST, most: int = MOST, optional: bool = False, boolean: bool = False
) -> Any:
    """Return an integer, from `least` to `most`; or None where that is optional. boolean: True counts as 1."""
    if value is None and optional:
        return None
    try:
        if isinstance(value, bool) and not boolean:
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer{' or None' if optional else ''}, not {shown(value)}") from None
    if number < least:
        raise ValueError(f"{name} must be >= {least}, not {shown(number)}")
    if number > most:
        raise ValueError(f"{name} must be <= {most}, not {shown(number)}")
    return number


def boolean(name: str, value: Any) -> None:
    """Check a truth value: what is meant as a number or a name is a mistake."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {shown(value)}")


def exceptions(name: str, value: Any) -> tuple[type[BaseException], ...]:
    """Check an exception class, or a tuple of them, and return the tuple."""
    kinds = value if isinstance(value, tuple) else (value,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"{name} must be an exception class or a tuple of them, not {shown(value)}")
    return kinds


def not_above(name: str, value: float | None, limit_name: str, limit: float | None, why: str = "") -> None:
    """Check that one value is not larger than another; None is neither."""
    if value is not None and limit is not None and value > limit:
        raise ValueError(f"{name} must not exceed {limit_name}: {value!r} > {limit!r}{f' ({why})' if why else ''}")
