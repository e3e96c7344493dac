"""A process pool that tracks its workers by pidfd and never collides with the program that embeds it.

The public names are loaded at their first use (PEP 562), because the template imports this package, too, and needs
nothing of the host's side. For the same reason, files that template and workers load do not import TYPE_CHECKING from
`typing`, which takes as long to load as all these files together. They define the name themselves, and type checkers
take it for true. Here its value is `bool()` and not `False`. jedi, which completes names in editors, skips a block
whose condition is `False`, but reads one whose condition it cannot evaluate.

The package can be imported on every system. What needs Linux raises ImportError where it is imported or asked for,
and says what there is instead.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = bool()  # noqa: UP018
if TYPE_CHECKING:
    from concurrent.futures import ALL_COMPLETED as ALL_COMPLETED
    from concurrent.futures import FIRST_COMPLETED as FIRST_COMPLETED
    from concurrent.futures import FIRST_EXCEPTION as FIRST_EXCEPTION
    from concurrent.futures import BrokenExecutor as BrokenExecutor
    from concurrent.futures import CancelledError as CancelledError
    from concurrent.futures import Executor as Executor
    from concurrent.futures import InvalidStateError as InvalidStateError
    from concurrent.futures import ThreadPoolExecutor as ThreadPoolExecutor
    from concurrent.futures import TimeoutError as TimeoutError  # noqa: A004
    from concurrent.futures import as_completed as as_completed
    from concurrent.futures import wait as wait
    from concurrent.futures.process import BrokenProcessPool as BrokenProcessPool

    from pidfdpool._version import __version__
    from pidfdpool.deaths import Cause, Death
    from pidfdpool.errors import (
        CallNotSendable,
        DeadlineExceeded,
        GlobalNotAvailable,
        HeartbeatLost,
        InheritedFutureError,
        LargeGlobalWarning,
        MemoryExceeded,
        PayloadError,
        PayloadTooLarge,
        PidfdPoolError,
        PoisonTask,
        PoolBroken,
        QueueFull,
        TaskKilled,
        TaskTimeout,
        TemplateError,
        WorkerCrashed,
    )
    from pidfdpool.executor.choosing import get_executor
    from pidfdpool.executor.futures import Future, WorkerName
    from pidfdpool.executor.options import Options
    from pidfdpool.executor.outcome import Outcome
    from pidfdpool.executor.pool_executor import PidfdPoolExecutor, ProcessPoolExecutor
    from pidfdpool.executor.serial import SerialExecutor
    from pidfdpool.executor.shared import get_shared_executor
    from pidfdpool.executor.stream import Stream
    from pidfdpool.executor.tracing.trace import Trace
    from pidfdpool.loop.observed import Attempts, Observer, PoolLevel, TaskRetry, TemplateChange, WorkerChange
    from pidfdpool.loop.snapshots import Stats, WorkerInfo
    from pidfdpool.scheduler.policy import Policy, PoolOptions, TaskOptions
    from pidfdpool.worker.context import CurrentTask, current_task, heartbeat, unhealthy

_HOME = {
    "Attempts": "loop.observed",
    "CallNotSendable": "errors",
    "Cause": "deaths",
    "CurrentTask": "worker.context",
    "DeadlineExceeded": "errors",
    "Death": "deaths",
    "Future": "executor.futures",
    "GlobalNotAvailable": "errors",
    "HeartbeatLost": "errors",
    "InheritedFutureError": "errors",
    "LargeGlobalWarning": "errors",
    "MemoryExceeded": "errors",
    "Observer": "loop.observed",
    "Options": "executor.options",
    "Outcome": "executor.outcome",
    "PayloadError": "errors",
    "PayloadTooLarge": "errors",
    "PidfdPoolError": "errors",
    "PidfdPoolExecutor": "executor.pool_executor",
    "PoisonTask": "errors",
    "Policy": "scheduler.policy",
    "PoolBroken": "errors",
    "PoolLevel": "loop.observed",
    "PoolOptions": "scheduler.policy",
    "ProcessPoolExecutor": "executor.pool_executor",
    "QueueFull": "errors",
    "SerialExecutor": "executor.serial",
    "Stats": "loop.snapshots",
    "Stream": "executor.stream",
    "TaskKilled": "errors",
    "TaskOptions": "scheduler.policy",
    "TaskRetry": "loop.observed",
    "TaskTimeout": "errors",
    "TemplateChange": "loop.observed",
    "TemplateError": "errors",
    "Trace": "executor.tracing.trace",
    "WorkerChange": "loop.observed",
    "WorkerCrashed": "errors",
    "WorkerInfo": "loop.snapshots",
    "WorkerName": "executor.futures",
    "__version__": "_version",
    "current_task": "worker.context",
    "get_executor": "executor.choosing",
    "get_shared_executor": "executor.shared",
    "heartbeat": "worker.context",
    "unhealthy": "worker.context",
}

# The standard's own, so that a program which imports more from there than the pool has one import to change.
_STANDARD = {
    **dict.fromkeys(("ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"), "concurrent.futures"),
    **dict.fromkeys(("BrokenExecutor", "CancelledError", "Executor", "InvalidStateError"), "concurrent.futures"),
    **dict.fromkeys(("ThreadPoolExecutor", "TimeoutError", "as_completed", "wait"), "concurrent.futures"),
    "BrokenProcessPool": "concurrent.futures.process",
}

# Modules of 0.1 that held public names, so that programs which import these from there go on working.
__path__.append(f"{__path__[0]}/former_paths")

__all__ = [
    "Attempts",
    "CallNotSendable",
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
    "Observer",
    "Options",
    "Outcome",
    "PayloadError",
    "PayloadTooLarge",
    "PidfdPoolError",
    "PidfdPoolExecutor",
    "PoisonTask",
    "Policy",
    "PoolBroken",
    "PoolLevel",
    "PoolOptions",
    "ProcessPoolExecutor",
    "QueueFull",
    "SerialExecutor",
    "Stats",
    "Stream",
    "TaskKilled",
    "TaskOptions",
    "TaskRetry",
    "TaskTimeout",
    "TemplateChange",
    "TemplateError",
    "Trace",
    "WorkerChange",
    "WorkerCrashed",
    "WorkerInfo",
    "WorkerName",
    "__version__",
    "current_task",
    "get_executor",
    "get_shared_executor",
    "heartbeat",
    "unhealthy",
]

_NEEDS_LINUX = frozenset(
    ("Future", "Options", "PidfdPoolExecutor", "ProcessPoolExecutor", "Stream", "WorkerName", "get_shared_executor")
)
if sys.platform != "linux":
    __all__ = [name for name in __all__ if name not in _NEEDS_LINUX]  # what `import *` and `help` are to look at


def __getattr__(name: str) -> object:
    """Load a public name from the room that defines it."""
    if name in _NEEDS_LINUX and sys.platform != "linux":
        raise ImportError(
            f"pidfdpool's pools work on Linux only, and this is {sys.platform}: they track processes by pidfd, which "
            "no other system has. Use pidfdpool.get_executor() for the best that a system has, "
            "pidfdpool.SerialExecutor, concurrent.futures.ProcessPoolExecutor, or loky for a pool that outlives "
            "crashes.",
            name=__name__,
        )
    home = f"{__name__}.{_HOME[name]}" if name in _HOME else _STANDARD.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(__import__(home, fromlist=(name,)), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Name what can be imported, loaded or not."""
    return sorted({*globals(), *__all__, *_STANDARD})
