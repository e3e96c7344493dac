"""What the workers do in most scenarios.

Loads nothing that an interpreter does not have anyway: workers that are no copy of the host import this, and what it
would load took longer than the pool's own start, which is to be measured.
"""

from __future__ import annotations

import os
import time


def nothing(value: object) -> None:
    """Take an argument and return nothing: what is left is the pool's own cost."""


def echo(value: object) -> object:
    """Send the argument back."""
    return value


def pid_after(seconds: float) -> int:
    """Sleep, so that other workers get a task too, and tell whose work this was."""
    time.sleep(seconds)
    return os.getpid()


def kill_self() -> None:
    """Die as by the out-of-memory killer."""
    os.kill(os.getpid(), 9)  # SIGKILL


def wait_for(path: str) -> None:
    """Keep the worker until a file exists."""
    while not os.path.exists(path):
        time.sleep(0.001)
