"""A host with a console of its own, made with Python's `code` module. Statements come as arguments."""

from __future__ import annotations

import code
import sys


class Console(code.InteractiveConsole):
    def showtraceback(self) -> None:
        super().showtraceback()
        sys.exit(1)


if __name__ == "__main__":
    console = Console()
    for statement in sys.argv[1:]:
        for line in (*statement.splitlines(), ""):
            console.push(line)
