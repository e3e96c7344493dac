"""Which objects, however large, hold no name of a module: bytes, text and numbers, alone or a few together.

`payload` has to know whether a pickle mentions `__main__`. To search one of 64 KB for that takes ten times as long as
to make it, most of it being bytes or text. A look at the object itself takes a microsecond, as long as it has few
parts. No state; runs none of the object's own code.
"""

from __future__ import annotations

from _pickle import PickleBuffer

from pidfdpool.serialization import importable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SEARCHED_BELOW = 8 << 10  # bytes of a pickle below which it is searched as quickly
_MIN_PART = 1 << 10  # bytes for each part of an object that are to be searched rather than looked at
# Exactly these, no classes over them. What `map` sends is a PickleBuffer, and was looked through before.
_PLAIN_TYPES = frozenset({bytes, bytearray, PickleBuffer, str, int, float, bool, type(None)})
_Function = type(lambda: None)
_MAIN = ("__main__", "__mp_main__")


def is_plain(value: Any, size: int) -> bool:
    """Return whether the object certainly holds no name of `__main__`, nor of a module that only this process has.

    size: bytes of its pickle. An object with many parts for its size is none of these, because to look at each of
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
    share = size // (count + 1)  # less at each level, so that there are few
    return share >= _MIN_PART and all(is_plain(part, share) for part in parts)


def _is_importable(name: object) -> bool:
    return (
        type(name) is str
        and name not in _MAIN
        and all(module.__name__ != name for module in importable.unimportable_modules())
    )
