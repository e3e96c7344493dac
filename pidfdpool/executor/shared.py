"""get_shared_executor: one pool for the whole process, for libraries that need one now and then.

Several libraries in one process that each keep a pool have several times as many workers as there are CPUs. Here they
share one. It is made at its first use, grows when somebody asks for more workers, and never shrinks because somebody
asks for fewer: nobody's tasks are lost, and nobody's workers are taken away.

Users call it in any of their threads. A forked child has a copy, which starts workers of the child's own at its next
use (`own_pool`). It is closed when the interpreter ends, as every pool is (`lifecycle`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Self

from pidfdpool import checks
from pidfdpool.executor import arguments
from pidfdpool.executor.options import Options
from pidfdpool.executor.pool_executor import PidfdPoolExecutor
from pidfdpool.executor.serial import SerialExecutor
from pidfdpool.executor.serial_view import SerialView
from pidfdpool.process import cpus, locks
from pidfdpool.scheduler.policy import Policy, PoolOptions, TaskOptions, check_names
from pidfdpool.worker import context

Nested = Literal["serial", "share", "pool"]
_NESTED = ("serial", "share", "pool")
_OF_CONSTRUCTOR: dict[str, Any] = {"mp_context": None, "initializer": None, "initargs": (), "preload": ()}
IDLE = 300.0  # seconds after which a worker that nobody uses leaves, unless `idle_timeout` says something else


class _NotOwned:
    """An executor that others may use when a `with` block of somebody's is left."""

    def __exit__(self, *_: object) -> Literal[False]:
        """Do nothing: a block does not own the executor."""
        return False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> Literal[False]:
        """Do nothing, as `__exit__`."""
        return False


class SharedExecutor(_NotOwned, PidfdPoolExecutor):
    """The pool that a process shares. Made by `get_shared_executor` only; see there."""


class SharedSerialExecutor(_NotOwned, SerialExecutor):
    """What takes the place of the pool in a worker. Made by `get_shared_executor` only."""


class _Kept(NamedTuple):
    """An executor that is shared, and what its constructor got beside the options of its policy."""

    executor: SharedExecutor | SharedSerialExecutor
    given: dict[str, Any]


class _OfProcess:
    """What this process shares."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.worker = context.worker
        self.lock = locks.reentrant()  # reentrant, because a signal handler may ask for the pool, too
        self.pool: _Kept | None = None
        self.serial: _Kept | None = None

    def renew_after_fork(self) -> None:
        """Have a lock of this process's own: another thread may have held the parent's when it forked.

        A worker that was forked from the host does not take over what the host had: that is of another size.
        """
        if self.owner != os.getpid():
            self.lock, self.owner = locks.reentrant(), os.getpid()
            if self.worker != context.worker:
                self.worker, self.pool, self.serial = context.worker, None, None


_shared = _OfProcess()


def get_shared_executor(
    max_workers: int | None = None, *, nested: Nested = "serial", **options: Any
) -> PidfdPoolExecutor | Options | SerialView:
    """Return the pool that this process shares. It is made at the first call, and started at the first submit.

    Args:
        max_workers: the number of workers that it must have at least. It grows if it has fewer, and does not shrink.
            Default: as it is; for the first call the number of CPUs that this process may use.
        nested: what to return in a worker of a pool, whose siblings use the other CPUs already. "serial": a
            `SerialExecutor`, so calls are made in place. "share": a pool of the worker's own that has this worker's
            share of the CPUs, at least one worker, whatever max_workers says. "pool": a pool as anywhere else.
        options: those of `PidfdPoolExecutor`. If some are for tasks (`TaskOptions`), a view of the pool that has them
            is returned (`PidfdPoolExecutor.options`), and nobody else's tasks are concerned. The others, with
            mp_context, initializer, initargs and preload, are for the pool: the first call decides, and later ones
            may leave them out or give the same. idle_timeout is 300.0 here if it is not given.

    The pool is shared by all threads. A forked child has workers of its own. All ends with the interpreter, or
    sooner: `shutdown()` ends the pool for everybody. Tasks that were accepted are finished, a later submit to it
    raises RuntimeError, and the next call of this function makes a new pool with its own arguments. So only a program
    should call it, and no library. Leaving a `with` block does nothing. A pool that has broken is replaced at the
    next call, by one with the same size and options if that gives no others.

    Raises:
        ValueError: the pool has another value for an option than the one that is given; both are named.
        TypeError, ValueError: an argument makes no sense; the message names it and its value.
    """
    if not isinstance(nested, str) or nested not in _NESTED:
        raise ValueError(f"nested must be one of {', '.join(map(repr, _NESTED))}, not {checks.short_repr(nested)}")
    size = None if max_workers is None else arguments.checked_max_workers(max_workers)
    given = _given_to_constructor(options)
    check_names("get_shared_executor", _without(options, given), PoolOptions.__annotations__)
    rules = _without(options, {**given, **TaskOptions.__annotations__})
    of_tasks = {name: value for name, value in options.items() if name in TaskOptions.__annotations__}
    _shared.renew_after_fork()
    with _shared.lock:
        if context.worker is not None and nested == "serial":
            kept = _shared.serial = _kept_or_new(_shared.serial, SharedSerialExecutor, size, rules, given)
        else:
            if context.worker is not None and nested == "share":
                size = max(1, cpus.usable() // context.worker.siblings)
                least = rules.get("min_workers")
                if type(least) is int:
                    rules["min_workers"] = min(least, size)  # a share may be less than the whole host's pool has
            kept = _shared.pool = _kept_or_new(_shared.pool, SharedExecutor, size, rules, given)
    return kept.executor.options(**of_tasks) if of_tasks else kept.executor


def _given_to_constructor(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options that are no options of a policy, in a form that can be looked at more than once.

    Raises:
        TypeError, ValueError: one of them makes no sense.
    """
    given = {name: options[name] for name in _OF_CONSTRUCTOR if name in options}
    arguments.checked_start_method(given.get("mp_context"))
    if "preload" in given:
        modules, call = arguments.checked_preload(given["preload"])
        given["preload"] = modules if call is None else (*modules, call)
    if "initargs" in given:
        found = arguments.checked_initializer(given.get("initializer") or _kept_or_new, given["initargs"])
        given["initargs"] = () if found is None else found[1]
    return given


def _without(options: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in others}


def _kept_or_new(
    kept: _Kept | None,
    make: type[SharedExecutor | SharedSerialExecutor],
    size: int | None,
    rules: dict[str, Any],
    given: dict[str, Any],
) -> _Kept:
    """Return what is shared already, with at least so many workers, or a new one if that is broken or shut down.

    Raises:
        ValueError: what is shared was made with another value of an option.
        TypeError, ValueError: an option makes no sense.
    """
    if kept is not None:
        executor, policy = kept.executor, kept.executor._policy
        if executor._is_open():
            asked = Policy(max(executor._max_workers, size or 0), **rules)
            for name in rules:
                _check_same(name, getattr(policy, name), getattr(asked, name))
            for name, value in given.items():
                _check_same(name, {**_OF_CONSTRUCTOR, **kept.given}[name], value)
            if size is not None and size > executor._max_workers:
                executor.resize(size)
            return kept
        if executor.stats().broken is not None:  # it is replaced by one of its kind
            size = max(executor._max_workers, size or 0)
            given = {**kept.given, **given}
            of_pool = _without(PoolOptions.__annotations__, TaskOptions.__annotations__)
            rules = {**{name: getattr(policy, name) for name in of_pool}, **rules}
    return _Kept(make(size, **given, **{"idle_timeout": IDLE, **rules}), given)


def _check_same(name: str, before: Any, now: Any) -> None:
    """Raise ValueError if an option that is asked for is not what the executor was made with."""
    if name == "mp_context":
        same = arguments.checked_start_method(before) == arguments.checked_start_method(now)
    else:
        same = arguments.is_same(before, now)
    if not same:
        one, other = map(checks.short_repr, (before, now))
        raise ValueError(
            f"the shared executor of this process was made with {name}={one}, and {name}={other} is asked for now. "
            f"Leave {name} out, or make a pool of your own with PidfdPoolExecutor."
        )
