"""Callbacks that the pool makes: one that is added to a future that is done is made by whoever adds it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from pidfdpool import PidfdPoolExecutor
from tests import calls


def submit(pool: PidfdPoolExecutor, *callbacks: Callable[[Future], object], then: Callable[[], Any] = int) -> Future:
    """Submit a call that ends when the callbacks are there, and that ends with another call."""
    with tempfile.NamedTemporaryFile() as file:
        future = pool.submit(calls.call_when_gone, file.name, then)
        for callback in callbacks:
            future.add_done_callback(callback)
    return future
