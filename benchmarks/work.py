"""What the workers do in the benchmarks about supervision. In a module of its own, so that workers keep its state."""

from __future__ import annotations

import json
import os
import time

LEAK = 200_000  # bytes per task

_leaked: list[bytes] = []
_loaded: list[bytes] = []
_document = {"events": [{"id": number, "tags": ["a", "b"], "value": number / 3} for number in range(300)]}


def leak(number: int) -> int:
    """Work for about a millisecond, and keep memory that nobody needs."""
    for _ in range(2):
        json.loads(json.dumps(_document))
    _leaked.append(b"x" * LEAK)
    return number


def load() -> None:
    """Load what all tasks read; its size is in the environment, because a preload takes no arguments."""
    _loaded.extend(bytes([number % 250 + 1]) * 1_000_000 for number in range(int(os.environ["PRELOAD_MEGABYTES"])))


def look(seconds: float) -> int:
    """Read from all of the data."""
    time.sleep(seconds)
    return sum(block[0] for block in _loaded)
