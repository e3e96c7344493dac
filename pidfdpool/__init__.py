"""A process pool that tracks its workers by pidfd and never collides with the program that embeds it.

The names below are loaded on first use (PEP 562): the template process imports this package too, and must not
pay for the host's half of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidfdpool._version import __version__

if TYPE_CHECKING:
    from pidfdpool.errors import (
        InheritedFutureError,
        PayloadError,
        PidfdPoolError,
        PoolBroken,
        TemplateError,
        WorkerCrashed,
    )
    from pidfdpool.executor import PidfdPoolExecutor, ProcessPoolExecutor
    from pidfdpool.futures import Future

_HOME = {
    "PidfdPoolExecutor": "executor",
    "ProcessPoolExecutor": "executor",
    "Future": "futures",
    "InheritedFutureError": "errors",
    "PayloadError": "errors",
    "PidfdPoolError": "errors",
    "PoolBroken": "errors",
    "TemplateError": "errors",
    "WorkerCrashed": "errors",
}

__all__ = [
    "Future",
    "InheritedFutureError",
    "PayloadError",
    "PidfdPoolError",
    "PidfdPoolExecutor",
    "PoolBroken",
    "ProcessPoolExecutor",
    "TemplateError",
    "WorkerCrashed",
    "__version__",
]


def __getattr__(name: str) -> object:
    """Load a public name from the room that defines it."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Name what can be imported, loaded or not."""
    return sorted({*globals(), *__all__})
