"""The parser of command lines. An error is reported in one line, before anything is started; the exit code is 2.

Called by the commands, in the host, on its main thread.
"""

from __future__ import annotations

import argparse
from typing import NoReturn

from pidfdpool.scheduler.policy import MOST_WORKERS

_MAX_SHOWN = 50  # characters of a value


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


def count(text: str, most: int = 10_000_000) -> int:
    """Parse a number that is at least 1. For argparse, which turns the error into a message."""
    shown = text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
    try:
        number = int(text)
    except ValueError:
        if text.isdecimal():  # more digits than Python reads
            raise argparse.ArgumentTypeError(f"must be at most {most}, not {shown}") from None
        raise argparse.ArgumentTypeError(f"must be a whole number, not {shown!r}") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {shown}")
    if number > most:
        raise argparse.ArgumentTypeError(f"must be at most {most}, not {shown}")
    return number


def workers(text: str) -> int:
    """Parse the number of worker processes of a pool. As `count`."""
    return count(text, MOST_WORKERS)
