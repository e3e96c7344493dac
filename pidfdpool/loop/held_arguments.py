"""What a task holds of its call until its future is told, beside the call's payload.

Arguments may live on only as long as the host holds them, though the worker has a copy: what a manager's proxy refers
to is gone with the last proxy, a temporary directory with its object. The standard library's pool holds the call
until its future is done, and so does a task. Of a large call only that is held of whose end somebody is told; the
rest would be there twice.

What multiprocessing shares is a duplicate that waits to be fetched. If the call never runs, that goes on until
`Shared` is let go of.

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


# Of whose end nobody can be told, and which refer to nothing else; a function is held by its task's name anyway.
_PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None), FunctionType, BuiltinFunctionType, type})


class Shared:
    """A call that shares something with whoever rebuilds it."""

    __slots__ = ("_call", "_shared")

    def __init__(self, call: Call, shared: list[Any]) -> None:
        self._call = call
        self._shared = shared

    def __del__(self) -> None:
        picklers.close_unfetched(self._shared)


def held(call: Call, buffers: list[Buffer]) -> object:
    """Return what is to be held of a call whose payload was just made by this thread; None: nothing."""
    if picklers.shared_resources and (shared := picklers.pop_shared_resources()):
        return Shared(call, shared)
    function, arguments, keywords = call
    if not keywords and type(function) in _PLAIN and _PLAIN.issuperset(map(type, arguments)):
        return None
    if type(buffers) is list:
        return call
    return [value for value in (*arguments, *keywords.values()) if _has_followers(value)]


def _has_followers(value: object) -> bool:
    return hasattr(type(value), "__del__") or bool(weakref.getweakrefcount(value))


def let_go() -> None:
    """Take back what this thread has shared in attempts that came to nothing."""
    if picklers.shared_resources:
        picklers.close_unfetched(picklers.pop_shared_resources())
