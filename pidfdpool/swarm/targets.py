"""What a swarm is asked to run: the check of it, and which module a node needs for it."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from pidfdpool import checks
from pidfdpool.serialization import importable

if TYPE_CHECKING:
    from collections.abc import Callable


def module_of(target: Any) -> str:
    """Return the name of the module that a node has to import for its target."""
    while isinstance(target, partial):
        target = target.func
    name = getattr(target, "__module__", None)
    if isinstance(name, str) and name not in ("__main__", "__mp_main__"):
        module = sys.modules.get(name)
        if module is not None and importable.is_importable(name, module):
            return name
    return "cloudpickle"  # the target is sent by value; to import this takes longer than all else at a node's start


def checked_call(target: Any, args: Any) -> tuple[Callable[..., object], tuple[Any, ...]]:
    """Return target and args. Raises TypeError: they are no function, or no arguments."""
    if not callable(target):
        raise TypeError(f"target must be a callable, not {checks.short_repr(target)}")
    try:
        return target, tuple(iter(args))
    except TypeError:
        raise TypeError(f"args must be an iterable of arguments, not {checks.short_repr(args)}") from None
