"""Which options make sense on a cluster, and what becomes of each: for the node's pool, for each call, or for dask.

Checked in the client, by making an executor of ours, which starts nothing. Pure but for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pidfdpool
from pidfdpool.integrations.dask_cluster import payloads
from pidfdpool.integrations.dask_cluster.calls import TryAgain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pidfdpool.integrations.dask_cluster.payloads import Payload

ARGUMENTS = ("initializer", "initargs", "preload", "mp_context")  # of the constructor, beside its options
_TASK = frozenset(pidfdpool.TaskOptions.__annotations__)
_POOL = frozenset(pidfdpool.PoolOptions.__annotations__) - _TASK

_MOST = 65535  # workers of a pool

_QUEUE = "calls wait in the queue of dask's scheduler"
OF_EXECUTOR = {
    "deadline": f"{_QUEUE}, which does not drop them by their age. Pass a timeout to map() or result()",
    "max_pending": f"{_QUEUE}, which has no limit. Use map() with a buffersize",
    "block": f"{_QUEUE}, which has no limit. Use map() with a buffersize",
    "on_crash": "a death on one node never breaks the executor",
    "max_workers": "a node's pool has as many workers as its dask worker has threads",
}
OF_PLUGIN = {
    "max_pending": "a full pool would hold up the event loop of the dask worker, and dask limits what it submits",
    "block": "there is no max_pending here",
    "max_workers": "its name is workers here",
}

# What the pool of a node can tell apart by itself; other exceptions are compared in its workers.
_OF_THE_POOL = (pidfdpool.WorkerCrashed, pidfdpool.MemoryExceeded, pidfdpool.TaskTimeout, pidfdpool.HeartbeatLost)


class Rules(NamedTuple):
    """The rules for calls, as requests carry them."""

    options: dict[str, Any]  # of tasks, for the node's pool
    retries: int
    survives_loss: bool  # a call whose node was lost may be tried again
    retry_on: Payload | None  # exceptions that only the worker which makes the call can tell
    priority: int
    cancel_kills: bool


def check_names(of: str, given: Mapping[str, Any], refused: Mapping[str, str], *, for_tasks: bool = False) -> None:
    """Refuse what is no option, or none that makes sense on a cluster, by its name.

    Raises:
        TypeError: there is such an option.
    """
    known = (_TASK if for_tasks else _TASK | _POOL | set(ARGUMENTS)) - refused.keys()
    for name, value in given.items():
        if name in known:
            continue
        problem = f"{of}() got an unexpected keyword argument {name!r} (its value is {_shown(value)})"
        if name in refused:
            raise TypeError(f"{problem}; it makes no sense there: {refused[name]}")
        if for_tasks and name in _POOL | set(ARGUMENTS):
            raise TypeError(f"{problem}; it is one of the whole pool, for the constructor")
        from difflib import get_close_matches

        likely = get_close_matches(name, known, 1)
        hint = f"did you mean {likely[0]!r}?" if likely else "docs/options.md of pidfdpool lists the options"
        raise TypeError(f"{problem}; {hint}")


def check_values(workers: int | None, given: Mapping[str, Any]) -> None:
    """Refuse values that make no sense. workers: of the pools; None: as many as a dask worker has threads.

    Raises:
        TypeError, ValueError: as the constructor of `PidfdPoolExecutor`.
    """
    pidfdpool.PidfdPoolExecutor(_MOST if workers is None else workers, **given)


def check_refinement(base: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse options for tasks whose values make no sense, alone or beside those of the executor.

    Raises:
        TypeError, ValueError: as `PidfdPoolExecutor.options`.
    """
    pidfdpool.PidfdPoolExecutor(1, **base).options(**given)


def of_pool(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments and options for the constructor of a node's pool."""
    return {name: value for name, value in given.items() if name in _POOL or name in ARGUMENTS}


def of_tasks(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options for tasks."""
    return {name: value for name, value in given.items() if name in _TASK}


def rules(given: Mapping[str, Any]) -> Rules:
    """Return what requests carry of options for tasks, which were checked."""
    options = dict(given)
    priority = options.pop("priority", 0)
    cancel_kills = options.pop("cancel_kills", False)
    wanted = options.pop("retry_on", (pidfdpool.WorkerCrashed,))
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    ours = tuple(kind for kind in _OF_THE_POOL if issubclass(kind, wanted))
    if options.get("retries"):
        options["retry_on"] = (*ours, TryAgain)
    others = tuple(kind for kind in wanted if kind not in _OF_THE_POOL)
    return Rules(
        options,
        options.get("retries", 0),
        pidfdpool.WorkerCrashed in ours,
        payloads.dumps(others) if others else None,
        priority,
        cancel_kills,
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
