"""Functions that tests of observers and traces have workers call."""

from __future__ import annotations

import os
import time

from pidfdpool.transport import black_box
from pidfdpool.worker import chunk


class Referable:
    """An object of which there can be weak references."""


def same(value: object) -> object:
    return value


def timed_sleep(seconds: float) -> tuple[float, float]:
    """Sleep; return when that began and ended, as time.monotonic() tells it."""
    began = time.monotonic()
    time.sleep(seconds)
    return began, time.monotonic()


def close_black_box() -> None:
    """Close the descriptor of this worker's black box, as a task may that closes all that it did not open."""
    assert chunk.black_box_fd is not None
    os.close(chunk.black_box_fd)


def falsify_times() -> None:
    """Write nonsense where this worker's times are."""
    assert chunk.black_box_fd is not None
    os.pwrite(chunk.black_box_fd, os.urandom(black_box.RUN_TIMES_SIZE), black_box.RUN_TIMES_OFFSET)
