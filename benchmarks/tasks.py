"""What the workers do in most scenarios.

Loads nothing that an interpreter does not have anyway: workers that are no copy of the host import this, and what it
would load took longer than the pool's own start, which is to be measured.
"""

from __future__ import annotations

import os
import time

_kept: dict[int, bytes] = {}


def nothing(value: object) -> None:
    """Take an argument and return nothing: what is left is the pool's own cost."""


def echo(value: object) -> object:
    """Send the argument back."""
    return value


class Order:
    """An object that is neither a number nor a container: what many programs send."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.items = {"name": f"item {number}", "price": number / 7}


def ordered(order: Order) -> Order:
    """Return another object of the kind."""
    return Order(order.number + 1)


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


def kept(size: int) -> bytes:
    """Return so many bytes, the same ones each time, so that only the first call pays for making them."""
    if size not in _kept:
        _kept[size] = bytes(range(250)) * (size // 250)
    return _kept[size]


def record_of(pid: int) -> bytes:
    """Return a pid in as many bytes as any other."""
    return b"%10d\n" % pid


def hold(ready: str, gate: str) -> None:
    """Tell by one named pipe that this worker is up, and keep it until somebody opens the other one for writing."""
    with open(ready, "wb", buffering=0) as pipe:
        pipe.write(record_of(os.getpid()))
    with open(gate, "rb"):
        pass
