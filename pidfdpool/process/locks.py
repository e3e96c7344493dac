"""Locks whose `with` a signal handler that raises leaves either entered or not, and never half entered.

Used in the host and in workers, on any thread, by all rooms. `native` has those between threads of the operating
system.

`__enter__` and `__exit__` of the standard's locks are C functions, in which no handler written in Python runs. But
CPython 3.14 may run one when `__enter__` has returned, before it protects the block. If the handler raises then, the
lock stays held for ever (python/cpython issue 148874; Python 3.15 has it mended). There the locks that are returned
are acquired by an instruction after which no handler runs before the block has begun.

CPython 3.13 and 3.14 do not protect the step at the end of a loop's body that goes back to its begin, if that follows
an `if` (python/cpython issue 130279). What a handler raises there leaves `with`, `except` and `finally` of the same
function aside. So such a loop is in a function of its own that is called within the block, or its body ends in
another statement.
"""

from __future__ import annotations

import _thread
import sys
from _operator import attrgetter, methodcaller  # `operator` and `typing` take their time to load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAY_ENTER_HALF = sys.version_info[:2] == (3, 14)
_derived: dict[type[Any], type[Any]] = {}  # the classes of reentrant locks; gevent's hosts have two that are in C


class _Plain:
    """A threading.Lock, from which no class can be derived."""

    __slots__ = ("_exit", "acquire", "locked", "release")

    def __init__(self, lock: Any) -> None:
        self.acquire, self.release, self.locked, self._exit = lock.acquire, lock.release, lock.locked, lock.__exit__

    # It is acquired by a look at an attribute. Handlers run at the end of calls of C functions, but not
    # behind such a look, and not where a function of Python's ends.
    _acquired = property(methodcaller("acquire"))

    def __enter__(self) -> Any:
        return self._acquired

    __exit__ = property(attrgetter("_exit"))  # a C function, in which no handler runs


def _reentrant_of(kind: type[Any]) -> type[Any]:
    """Return the class of a threading.RLock that is entered as `_Plain` is. kind: the standard's class."""

    class Reentrant(kind):  # type: ignore[misc]
        __slots__ = ()
        _acquired = property(kind.acquire)

        def __enter__(self) -> Any:
            return self._acquired

    return Reentrant


def reentrant() -> Any:
    """Return a threading.RLock of the host's own kind: between greenlets, where its threads are greenlets."""
    return whole(sys.modules.get("threading", _thread).RLock())


def plain() -> Any:
    """Return a threading.Lock of the host's own kind; see `reentrant`."""
    threading = sys.modules.get("threading")
    return whole(_thread.allocate_lock() if threading is None else threading.Lock())


def whole(lock: Any) -> Any:
    """Return the lock, or a new one of its kind whose `with` is never half entered.

    Greenlets have locks of types that are not the standard's. These are returned as they are.
    """
    kind = type(lock)
    if not _MAY_ENTER_HALF or kind.__module__ != _thread.__name__:
        return lock
    if not hasattr(kind, "_is_owned"):
        return _Plain(lock)
    if kind not in _derived:
        _derived[kind] = _reentrant_of(kind)
    return _derived[kind]()
