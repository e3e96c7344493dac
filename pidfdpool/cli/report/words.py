"""Numbers as a reader wants them: three digits and a unit. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

_SIZES = ("bytes", "kB", "MB", "GB", "TB")


def duration(seconds: float) -> str:
    """Return a duration, such as `12 µs`, `3.4 ms`, `1.2 s` or `3 min 20 s`."""
    if seconds >= 99.5:
        whole = round(seconds)
        minutes, rest = divmod(whole, 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s"
    if seconds >= 0.9995:
        return f"{_digits(seconds)} s"
    if seconds >= 0.9995e-3:
        return f"{_digits(seconds * 1e3)} ms"
    return f"{_digits(seconds * 1e6)} µs" if seconds > 0 else "0 s"


def size(number: float) -> str:
    """Return an amount of bytes, such as `80 MB`; a unit is 1000 times the one before."""
    unit = 0
    while number >= 999.5 and unit < len(_SIZES) - 1:
        number /= 1000
        unit += 1
    return f"{_digits(number)} {_SIZES[unit]}" if number != 1 or unit else "1 byte"


def rate(number: float) -> str:
    """Return a number per second, without the unit."""
    return _digits(number) if number < 999.5 else f"{number:,.0f}"


def share(number: float) -> str:
    """Return a share as percent. What is not all is not 100 %, and what is something is not 0 %."""
    if 0 < number < 0.01:
        return "<1 %"
    return f"{min(99, round(number * 100)) if number < 1 else 100} %"


def count(number: int, one: str, many: str | None = None) -> str:
    """Return a number of things: `1 task`, `1,200 tasks`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def moment(seconds: float) -> str:
    """Return a time in unix seconds as a date in UTC; `?` if there is no such date."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return "?"


def _digits(number: float) -> str:
    """Return a number below 1000 with three digits, without zeros at its end that say nothing."""
    if number >= 99.5:
        return f"{number:.0f}"
    text = f"{number:.{1 if number >= 9.995 else 2}f}" if number >= 0.01 else f"{number:.2g}"
    return text.rstrip("0").rstrip(".") if "." in text else text
