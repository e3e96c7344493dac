"""Functions that tests have workers call."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time


def identify(_: object = None) -> tuple[int, int]:
    return os.getpid(), os.getppid()


def double(value):
    return value * 2


def sleep(seconds: float, value: object = None) -> object:
    time.sleep(seconds)
    return value


def die(number: int = signal.SIGKILL) -> None:
    signal.raise_signal(number)
    time.sleep(60)


def leave(code: int) -> None:
    os._exit(code)


def touch_and(path: str, then: str, seconds: float = 60.0) -> object:
    """Append this process's pid to a file, then do as told."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    if then == "spin":
        while True:
            pass
    if then == "sleep":
        time.sleep(seconds)
    if then == "regex":  # holds the GIL in native code for longer than anybody waits
        import re

        re.match(r"(a+)+$", "a" * 60 + "b")
    return path


def raise_it(error: BaseException) -> None:
    raise error


def exit_with(code: object) -> None:
    sys.exit(code)


class Unpicklable:
    def __reduce__(self):
        raise TypeError("this object does not pickle")


class Unloadable:
    """Pickles, and raises when it is rebuilt."""

    def __init__(self, error: str = "ValueError") -> None:
        self.error = error

    def __reduce__(self):
        return _refuse, (self.error,)


def _refuse(name: str):
    raise {"ValueError": ValueError, "SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}[name](
        "this object does not unpickle"
    )


class TwoArguments(Exception):
    """An exception of the common kind that pickles and then cannot be rebuilt."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def make(kind: str, *arguments):
    return globals()[kind](*arguments)


def raise_new(kind: str, *arguments):
    raise globals()[kind](*arguments)


class Thing:
    pass


def identity_of_new(_: object) -> Thing:
    return Thing()


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """Pickles by its attributes, which cannot be set when it is rebuilt."""

    number: int


@dataclasses.dataclass(frozen=True)
class FrozenWithReduce(Exception):
    number: int

    def __reduce__(self):
        return type(self), (self.number,)
