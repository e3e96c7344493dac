"""A process pool that tracks its workers by pidfd and never collides with the program that embeds it.

The names below are loaded on first use (PEP 562): the template process imports this package too, and must not
pay for the host's half of it. For the same reason TYPE_CHECKING is not imported in what template and workers load:
`typing` takes as long to load as everything else there. Type checkers know the name.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pidfdpool._version import __version__
    from pidfdpool.actions import Cause
    from pidfdpool.context import CurrentTask, current_task, heartbeat, unhealthy
    from pidfdpool.deaths import Death
    from pidfdpool.errors import (
        DeadlineExceeded,
        GlobalNotAvailable,
        HeartbeatLost,
        InheritedFutureError,
        LargeGlobalWarning,
        MemoryExceeded,
        PayloadError,
        PidfdPoolError,
        PoisonTask,
        PoolBroken,
        QueueFull,
        TaskKilled,
        TaskTimeout,
        TemplateError,
        WorkerCrashed,
    )
    from pidfdpool.executor import PidfdPoolExecutor, ProcessPoolExecutor
    from pidfdpool.futures import Future, WorkerName
    from pidfdpool.loop.snapshots import Stats, WorkerInfo
    from pidfdpool.options import Options
    from pidfdpool.policy import Policy

_HOME = {
    "Cause": "actions",
    "CurrentTask": "context",
    "Death": "deaths",
    "DeadlineExceeded": "errors",
    "Future": "futures",
    "GlobalNotAvailable": "errors",
    "HeartbeatLost": "errors",
    "InheritedFutureError": "errors",
    "LargeGlobalWarning": "errors",
    "MemoryExceeded": "errors",
    "Options": "options",
    "PayloadError": "errors",
    "PidfdPoolError": "errors",
    "PidfdPoolExecutor": "executor",
    "PoisonTask": "errors",
    "Policy": "policy",
    "PoolBroken": "errors",
    "ProcessPoolExecutor": "executor",
    "QueueFull": "errors",
    "Stats": "loop.snapshots",
    "TaskKilled": "errors",
    "TaskTimeout": "errors",
    "TemplateError": "errors",
    "WorkerCrashed": "errors",
    "WorkerInfo": "loop.snapshots",
    "WorkerName": "futures",
    "__version__": "_version",
    "current_task": "context",
    "heartbeat": "context",
    "unhealthy": "context",
}

__all__ = [
    "Cause",
    "CurrentTask",
    "DeadlineExceeded",
    "Death",
    "Future",
    "GlobalNotAvailable",
    "HeartbeatLost",
    "InheritedFutureError",
    "LargeGlobalWarning",
    "MemoryExceeded",
    "Options",
    "PayloadError",
    "PidfdPoolError",
    "PidfdPoolExecutor",
    "PoisonTask",
    "Policy",
    "PoolBroken",
    "ProcessPoolExecutor",
    "QueueFull",
    "Stats",
    "TaskKilled",
    "TaskTimeout",
    "TemplateError",
    "WorkerCrashed",
    "WorkerInfo",
    "WorkerName",
    "__version__",
    "current_task",
    "heartbeat",
    "unhealthy",
]


def __getattr__(name: str) -> object:
    """Load a public name from the room that defines it."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(__import__(f"{__name__}.{home}", fromlist=(name,)), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Name what can be imported, loaded or not."""
    return sorted({*globals(), *__all__})
