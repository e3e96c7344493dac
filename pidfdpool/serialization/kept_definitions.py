"""Keeps functions and classes of scripts alive after they were sent to workers, because a result may refer to them.

A result names such a definition by its id (see `definitions`). While the task runs, the program may define it anew or
delete it. Small definitions, the last ones that were sent, are kept here for a while, because a worker may have kept
an object of such a class. Large ones are held by each task that may refer to them, until its future is resolved. So a
program that defines or deletes things again and again does not use more and more memory.

In the host, on any thread.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pidfdpool.serialization.namespaces import Key

LARGE = 1 << 16  # bytes of a definition's pickle; from this size on only tasks keep the definition
_MAX_BYTES = 1 << 18  # bytes of the pickles of all small definitions together
_MAX_PER_NAME = 8  # definitions that are kept under one name, if the program defines it again and again

_small: dict[int, tuple[Key, Any, int]] = {}  # by id, in the order in which they were sent
# by id; with the name and the globals in which it is found as long as it can be sent
large: dict[int, tuple[weakref.ref[Any], str, dict[str, Any]]] = {}


def record(number: int, key: Key, value: Any, size: int, names: dict[str, Any]) -> None:
    """Record that a definition was pickled.

    number: its id in results. key: its module and name. size: bytes of its pickle. names: the globals that it is in.
    """
    if size >= LARGE:
        _small.pop(number, None)
        large[number] = weakref.ref(value, lambda _: large.pop(number, None)), key[1], names
        return
    _small[number] = key, value, size
    known = list(_small.items())
    namesakes = [each for each, (name, _, _) in known if name == key]
    for each in namesakes[:-_MAX_PER_NAME]:
        _small.pop(each, None)
    excess = sum([bytes_held for _, (_, _, bytes_held) in known]) - _MAX_BYTES
    for each, (_, _, bytes_held) in known:
        if excess <= 0:
            break
        _small.pop(each, None)
        excess -= bytes_held


def definitions_for_task() -> list[Any]:
    """Return the large definitions that a call which is pickled now may refer to. The call's task holds them."""
    found = [(reference(), name, names) for reference, name, names in list(large.values())]
    return [value for value, name, names in found if value is not None and names.get(name) is value]
