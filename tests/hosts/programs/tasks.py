"""What host programs have done in workers."""

from __future__ import annotations

import os
import signal
import time


def double(number: int) -> int:
    return 2 * number


def pid(_: object = None) -> int:
    return os.getpid()


def sleep(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def touch_and_sleep(path: str, seconds: float) -> int:
    """Write this worker's pid into a file, so that a test knows that the task has begun."""
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(seconds)
    return os.getpid()


def touch_and_spin(path: str) -> None:
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    while True:
        pass


def leave(code: int) -> None:
    os._exit(code)


def die(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def fail(message: str) -> None:
    raise ValueError(message)
