"""Which objects of a call a task keeps alive until its future is resolved, beside the call's payload.

Some arguments are of use only as long as the host keeps them, although the worker has a copy. What a manager's proxy
refers to is gone with the last proxy, and a temporary directory is gone with its object. The standard library's pool
keeps the call until its future is done, and so does a task. Of a large call only those objects are kept that have a
finalizer or a weak reference; the rest would use memory twice.

What multiprocessing shares (a pipe end, a socket) is a duplicate that waits to be fetched by the worker. If the call
never runs, the duplicate waits until `Shared` is gone.

Called by the threads that submit, without a lock.
"""

from __future__ import annotations

import weakref
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any, TypeAlias

from pidfdpool.serialization import picklers

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidfdpool.transport.framing import Buffer

    Call: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


# Types without finalizers and weak references whose objects refer to nothing else. A task keeps its function anyway.
_PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None), FunctionType, BuiltinFunctionType, type})


class Shared:
    """A call that shares descriptors with the worker that rebuilds it."""

    __slots__ = ("_call", "_shared")

    def __init__(self, call: Call, shared: list[Any]) -> None:
        self._call = call
        self._shared = shared

    def __del__(self) -> None:
        picklers.close_unfetched(self._shared)


def held(call: Call, buffers: list[Buffer]) -> object:
    """Return what is to be kept of a call whose payload this thread has just made; None: nothing."""
    if picklers.shared_resources and (shared := picklers.pop_shared_resources()):
        return Shared(call, shared)
    function, arguments, keywords = call
    if not keywords and type(function) in _PLAIN and _PLAIN.issuperset(map(type, arguments)):
        return None
    if type(buffers) is list:
        return call
    return [value for value in (*arguments, *keywords.values()) if _is_observed(value)]


def _is_observed(value: object) -> bool:
    """Return whether something happens when the object is gone."""
    return hasattr(type(value), "__del__") or bool(weakref.getweakrefcount(value))


def let_go() -> None:
    """Close what this thread has shared in attempts to pickle that failed."""
    if picklers.shared_resources:
        picklers.close_unfetched(picklers.pop_shared_resources())
