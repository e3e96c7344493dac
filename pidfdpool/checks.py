"""Checks of values that users pass: each raises an error that names the argument and its value. Pure."""

from __future__ import annotations

import math
from typing import Any


def seconds(name: str, value: Any, *, optional: bool = False, zero: bool = True) -> None:
    """Check a duration: a finite number, 0 or more (zero: False: more than 0); or None where that is optional."""
    if value is None and optional:
        return
    least = "0 or more" if zero else "more than 0"
    wanted = f"a number of seconds, {least}{', or None' if optional else ''}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be {wanted}, not {value!r}")
    if not math.isfinite(value) or value < 0 or (not zero and value == 0):
        raise ValueError(f"{name} must be {wanted}, not {value!r}")


def integer(name: str, value: Any, *, least: int | None = None, optional: bool = False) -> None:
    """Check an integer, `least` or more; or None where that is optional."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer{' or None' if optional else ''}, not {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be >= {least}, not {value}")


def boolean(name: str, value: Any) -> None:
    """Check a truth value: what is meant as a number or a name is a mistake."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")


def exceptions(name: str, value: Any) -> tuple[type[BaseException], ...]:
    """Check an exception class, or a tuple of them, and return the tuple."""
    kinds = value if isinstance(value, tuple) else (value,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"{name} must be an exception class or a tuple of them, not {value!r}")
    return kinds


def not_above(name: str, value: float | None, limit_name: str, limit: float | None, why: str = "") -> None:
    """Check that one value is not larger than another; None is neither."""
    if value is not None and limit is not None and value > limit:
        raise ValueError(f"{name} must not exceed {limit_name}: {value!r} > {limit!r}{f' ({why})' if why else ''}")
