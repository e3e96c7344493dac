"""The parser of command lines. An error is reported in one line, before anything is started; the exit code is 2.

Called by the commands, in the host, on its main thread.
"""

from __future__ import annotations

import argparse
import math
import re
from typing import NoReturn

from pidfdpool.scheduler.policy import MOST_WORKERS

_MAX_SHOWN = 50  # characters of a value
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_LEAST_MEMORY = 32 << 20  # a worker has nearly as much before its first document
_MOST_RETRIES = 1000


class UsageError(Exception):
    """The command line asks for something impossible. The message names it, and suggests what to try."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose help keeps the line breaks it was given, and whose errors are one line."""

    def __init__(self, *, prog: str, usage: str | None = None, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,  # an abbreviation that works today may be ambiguous in a later version
        )

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, and exit."""
        _, unknown, names = message.partition("unrecognized arguments: ")
        likely = [each for name in names.split() if unknown for each in self._similar_options(name)]
        if likely:
            message += f": did you mean {' or '.join(dict.fromkeys(likely))}?"
        self.exit(2, f"{self.prog}: {message} (for help: {self.prog} --help)\n")

    def _similar_options(self, name: str) -> list[str]:
        """Return the option that the user may have meant by this one."""
        from difflib import get_close_matches

        return get_close_matches(name.partition("=")[0], self._option_string_actions, 1) if name[:1] == "-" else []


def count(text: str, most: int = 10_000_000, least: int = 1) -> int:
    """Parse a number that is at least 1. For argparse, which turns the error into a message."""
    shown = _shown(text)
    try:
        number = int(text)
    except ValueError:
        if text.isdecimal():  # more digits than Python reads
            raise argparse.ArgumentTypeError(f"must be at most {most}, not {shown}") from None
        raise argparse.ArgumentTypeError(f"must be a whole number, not {shown!r}") from None
    if number < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, not {shown}")
    if number > most:
        raise argparse.ArgumentTypeError(f"must be at most {most}, not {shown}")
    return number


def workers(text: str) -> int:
    """Parse the number of worker processes of a pool. As `count`."""
    return count(text, MOST_WORKERS)


def retries(text: str) -> int:
    """Parse a number of further attempts, 0 or more. As `count`."""
    return count(text, _MOST_RETRIES, 0)


def seconds(text: str) -> float:
    """Parse a duration in seconds, more than 0. As `count`."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number <= 0:
        raise argparse.ArgumentTypeError(f"must be a number of seconds, more than 0, not {_shown(text)!r}")
    return number


def memory(text: str) -> int:
    """Parse an amount of memory, such as 500M or 2G, to bytes. A unit is 1024 times the one before. As `count`."""
    parts = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)([KMGT]?)(?:i?B)?", text, re.ASCII | re.IGNORECASE)
    if parts is None:
        raise argparse.ArgumentTypeError(f"must be a size, such as 500M or 2G, not {_shown(text)!r}")
    size = int(float(parts[1]) * _UNITS[parts[2].upper()])
    if size < _LEAST_MEMORY:
        raise argparse.ArgumentTypeError(
            f"must be at least {_LEAST_MEMORY >> 20}M, which a worker needs without any document, not {_shown(text)}"
        )
    if size >= 1 << 63:
        raise argparse.ArgumentTypeError(f"must be a size, such as 500M or 2G, not {_shown(text)!r}")
    return size


def _shown(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
