"""Functions that tests have workers of a pool call."""

from __future__ import annotations

import os
import signal
import threading


def square(value: int) -> int:
    return value * value


def worker(_: object = None) -> int:
    return os.getpid()


def raise_for_three(value: int) -> int:
    if value == 3:
        raise KeyError(value)
    return value


def die_for_three(value: int) -> int:
    if value == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def lock() -> object:
    return threading.Lock()


class Unsendable(Exception):
    def __reduce__(self):
        raise TypeError("this exception stays where it is")


class Nameless(BaseException):
    """Refuses to be shown."""

    def __str__(self):
        raise SystemExit(3)

    __repr__ = __str__


class RefusesPickling:
    def __reduce__(self):
        raise Nameless


def raise_unsendable() -> None:
    raise Unsendable
