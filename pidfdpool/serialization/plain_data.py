"""Tells quickly whether an object is plain data: bytes, text and numbers, alone or a few together.

The pickle of plain data names no module. `payload` and `out_of_band` ask this on whichever thread pickles, because
they must know whether a pickle mentions `__main__`. To search a pickle of 64 KB for that takes ten times as long as
to make it, if most of it is bytes or text. To look at the object itself takes a microsecond, if it has few parts. No
state; runs none of the object's own code.
"""

from __future__ import annotations

from _pickle import PickleBuffer

from pidfdpool.serialization import importable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SEARCHED_BELOW = 8 << 10  # bytes of a pickle; a smaller one is searched as quickly
# bytes; if the parts are smaller on average, searching the pickle is quicker than looking at them
_MIN_PART = 1 << 10
# Exactly these types and no subclasses. `map` sends a PickleBuffer, whose contents were examined before.
_PLAIN_TYPES = frozenset({bytes, bytearray, PickleBuffer, str, int, float, bool, type(None)})
_Function = type(lambda: None)
_MAIN = ("__main__", "__mp_main__")


def is_plain(value: Any, size: int) -> bool:
    """Return whether the object certainly names nothing of `__main__`, nor of a module that only this process has.

    size: bytes of its pickle. The answer is False for an object that has many parts for its size: to look at each of
    them would take longer than to search the pickle.
    """
    kind = type(value)
    if kind in _PLAIN_TYPES:
        return True
    if kind is tuple or kind is list:
        return not value or _all_plain(value, size, len(value))
    if kind is dict:
        return not value or (_all_plain(value, size, 2 * len(value)) and _all_plain(value.values(), size, len(value)))
    # A function is always pickled by its name: no reducer is asked for one (Modules/_pickle.c, save).
    return kind is _Function and _is_importable(value.__module__)


def _all_plain(parts: Any, size: int, count: int) -> bool:
    share = size // (count + 1)  # it shrinks with each level, so the number of parts is bounded
    return share >= _MIN_PART and all(is_plain(part, share) for part in parts)


def _is_importable(name: object) -> bool:
    return (
        type(name) is str
        and name not in _MAIN
        and all(module.__name__ != name for module in importable.unimportable_modules())
    )
