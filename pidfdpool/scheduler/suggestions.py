"""Suggestions for the message about an option that does not exist. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

# Names that other pools use, or that people try; without underscores.
_ALSO_CALLED = {
    "retries": ("retry", "retrys", "maxretries", "maxretry", "retrycount", "attempts", "maxattempts", "tries"),
    "max_workers": (
        *("workers", "nworkers", "numworkers", "processes", "nprocesses", "numprocesses", "maxprocesses", "procs"),
        *("nprocs", "njobs", "jobs", "size", "poolsize", "concurrency"),
    ),
    "max_tasks_per_child": ("maxtasks", "maxtasksperworker", "tasksperchild"),
    "max_memory_per_child": ("memory", "maxmemory", "memorylimit", "maxmemoryperworker"),
    "max_age": ("lifetime", "maxlifetime", "workerlifetime", "ttl"),
    "max_pending": ("queuesize", "maxqueue", "maxqueuesize", "maxsize"),
    "mp_context": ("context", "ctx", "startmethod", "method"),
    "initializer": ("init", "initialiser"),
    "initargs": ("initializerargs", "args"),
    "preload": ("imports", "preloads", "preloadmodules"),
    "idle_timeout": ("idle", "maxidle", "maxidletime"),
    "grace": ("graceperiod", "killtimeout", "killafter"),
    "timeout": ("tasktimeout", "timelimit", "maxtime"),
}
_WHOLE = {other: name for name, others in _ALSO_CALLED.items() for other in others}
_NEAR = 0.1  # how much less similar than the most similar name a suggestion may be


def suggestions(name: str, known: Collection[str]) -> list[str]:
    """Return which of the known names may have been meant, the likeliest first; none, if none is similar."""
    import difflib

    plain = _plain(name)
    by_plain = {_plain(each): each for each in known}
    likely = [_WHOLE[plain]] if _WHOLE.get(plain) in known else []
    near = difflib.get_close_matches(plain, by_plain, 3)
    if near:
        best = _likeness(plain, near[0])
        likely += [by_plain[each] for each in near if _likeness(plain, each) >= best - _NEAR]
    return list(dict.fromkeys(likely))


def hint(name: str, known: Collection[str]) -> str:
    """Return the end of a message about an option that does not exist."""
    likely = suggestions(name, known)
    if not likely:
        return f"there are {', '.join(known)}"
    return f"did you mean {' or '.join(map(repr, likely))}?"


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _likeness(one: str, other: str) -> float:
    import difflib

    return difflib.SequenceMatcher(None, other, one).ratio()
