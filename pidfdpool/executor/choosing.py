"""get_executor: the best executor that this system has, so that a library needs no branch of its own.

Users call it in any thread. It needs nothing of Linux; what it chooses may.
"""

from __future__ import annotations

import concurrent.futures
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, overload

from pidfdpool import checks
from pidfdpool.executor import arguments
from pidfdpool.executor.serial import SerialExecutor
from pidfdpool.scheduler.policy import Policy, PoolOptions, check_names

if TYPE_CHECKING:
    from pidfdpool.executor.pool_executor import PidfdPoolExecutor

Kind = Literal["auto", "pidfdpool", "standard", "serial"]
_KINDS = ("auto", "pidfdpool", "standard", "serial")

_OF_CONSTRUCTOR = ("mp_context", "initializer", "initargs", "preload")  # not options of a `Policy`
# Options without which everything runs as well, only slower, with more memory, or with fewer words when it fails. The
# preload is here as far as it names modules: workers then load them themselves.
HARMLESS = frozenset(
    {
        "preload",
        "min_workers",
        "idle_timeout",
        "segment_memory",
        "prefetch",
        "spin",
        "memory_interval",
        "capture_stderr",
        "priority",
    }
)
_TAKEN = HARMLESS | {"max_tasks_per_child"}
_MOST_ON_WINDOWS = 61  # handles that Windows can wait for, as in concurrent.futures.process


@overload
def get_executor(
    kind: Literal["pidfdpool"],
    max_workers: int | None = None,
    *,
    check_pickling: bool = False,
    **options: Any,
) -> PidfdPoolExecutor: ...
@overload
def get_executor(
    kind: Literal["serial"],
    max_workers: int | None = None,
    *,
    check_pickling: bool = False,
    **options: Any,
) -> SerialExecutor: ...
@overload
def get_executor(
    kind: Kind = "auto", max_workers: int | None = None, *, check_pickling: bool = False, **options: Any
) -> concurrent.futures.Executor: ...
def get_executor(
    kind: Kind = "auto", max_workers: int | None = None, *, check_pickling: bool = False, **options: Any
) -> concurrent.futures.Executor:
    """Return a new executor. On every system the result has the methods of `concurrent.futures.Executor`.

    Args:
        kind: "pidfdpool": a `PidfdPoolExecutor`. "standard": a `concurrent.futures.ProcessPoolExecutor`. "serial": a
            `SerialExecutor`. "auto": the first of these three that this system has.
        max_workers: the number of workers at most. Default: the number of CPUs that this process may use.
        check_pickling: for a `SerialExecutor`. The others pickle every call in any case.
        options: the options of `PidfdPoolExecutor`, with mp_context, initializer, initargs and preload.

    All options are checked, whatever is chosen. The standard executor is given mp_context, initializer, initargs and
    max_tasks_per_child. It ignores what costs nothing but speed, memory or words: preload (of modules), min_workers,
    idle_timeout, segment_memory, prefetch, spin, memory_interval, capture_stderr, priority. Any other option is
    refused if its value is not the default, because nobody would enforce it. on_crash="break" is what it does.

    Raises:
        ImportError: the kind is "pidfdpool", and this is not Linux.
        TypeError, ValueError: an argument makes no sense, or the chosen executor cannot do what an option asks for.
    """
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, _KINDS))}, not {checks.short_repr(kind)}")
    checks.boolean("check_pickling", check_pickling)
    if kind == "pidfdpool" or (kind == "auto" and sys.platform == "linux"):
        from pidfdpool import PidfdPoolExecutor

        return PidfdPoolExecutor(max_workers, **options)
    if kind == "serial":
        return SerialExecutor(max_workers, check_pickling=check_pickling, **options)
    if kind == "auto":
        # Where processes have no semaphores, the standard executor can be imported, but not be made.
        with suppress(ImportError, NotImplementedError, OSError):
            return _standard(max_workers, options, "which get_executor() has chosen because this is not Linux")
        return SerialExecutor(max_workers, check_pickling=check_pickling, **options)
    return _standard(max_workers, options, "which kind='standard' asks for")


def _standard(max_workers: int | None, options: dict[str, Any], why: str) -> concurrent.futures.Executor:
    """Return the standard library's executor. why: it and not another one, for an error.

    Raises:
        TypeError, ValueError: an argument makes no sense, or an option asks for what it cannot do.
        ImportError, NotImplementedError, OSError: this system lacks what it needs.
    """
    from concurrent.futures.process import ProcessPoolExecutor

    size = arguments.checked_max_workers(max_workers)
    if max_workers is None and sys.platform == "win32":
        size = min(size, _MOST_ON_WINDOWS)
    rules = {name: value for name, value in options.items() if name not in _OF_CONSTRUCTOR}
    start = arguments.checked_start(
        options.get("mp_context"),
        options.get("initializer"),
        options.get("initargs", ()),
        options.get("preload", ()),
    )
    check_names("get_executor", rules, PoolOptions.__annotations__)
    asked, plain = Policy(size, **rules), Policy(size)
    context = options.get("mp_context")
    if isinstance(context, str):
        from multiprocessing import get_context

        context = get_context(context)
    initializer, initargs = start["initializer"] or (None, ())
    made = ProcessPoolExecutor(size, context, initializer, initargs, max_tasks_per_child=asked.max_tasks_per_child)
    # Only now, because where it cannot be made at all it does not matter what it cannot do.
    refused = [name for name in rules if name not in _TAKEN and not _has_no_effect(name, asked, plain)]
    if refused or start["preload_call"] is not None:
        made.shutdown()
        name, value = (refused[0], rules[refused[0]]) if refused else ("preload", start["preload_call"])
        raise TypeError(
            f"{name} is {checks.short_repr(value)}, and the standard library's ProcessPoolExecutor, {why}, has "
            f"nothing like it. Leave {name} out, or use kind='pidfdpool' on Linux."
        )
    return made


def _has_no_effect(name: str, asked: Policy, plain: Policy) -> bool:
    """Return whether a pool with this option does nothing else than the standard executor."""
    if name == "on_crash":
        return asked.on_crash == "break"
    return arguments.is_same(getattr(asked, name), getattr(plain, name))
