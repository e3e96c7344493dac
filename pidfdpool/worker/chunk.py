"""The task that `map` submits: one function over a run of argument tuples. Runs in a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def call_each(function: Callable[..., Any], chunk: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Return the results in order; the first exception ends the chunk, as in the standard library."""
    return [function(*arguments) for arguments in chunk]
