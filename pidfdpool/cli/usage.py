"""A mistake in the command line is told in one line, before anything is started, and the exit code is 2."""

from __future__ import annotations

import argparse
from typing import NoReturn


class UsageError(Exception):
    """The command line asks for something impossible; the message says what, and what to try."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose help keeps the line breaks it was given, and whose errors are one line."""

    def __init__(self, *, prog: str, usage: str | None = None, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,  # an abbreviation that works today is ambiguous tomorrow
        )

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit."""
        self.exit(2, f"{self.prog}: {message} (for help: {self.prog} --help)\n")


def count(text: str) -> int:
    """Read a number of things, at least 1. For argparse, which turns the error into a message."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number
