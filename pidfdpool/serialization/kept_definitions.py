"""What keeps functions and classes of scripts alive that were sent to workers, because a result may be of them.

Results name such a definition by its number (`origins`), and it may have been defined anew, or deleted, while the
task ran. Small ones are kept a while, the last ones that were sent, whoever else has them; a worker may have kept an
object of one since. Of large ones each task holds those that it could come upon, until its future is told. So what a
program defines again and again, or deletes, does not add up in its memory.

In the host; any thread.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pidfdpool.serialization.namespaces import Key

LARGE = 1 << 16  # bytes of its pickle, from which on a definition is kept by tasks only
_MAX_BYTES = 1 << 18  # bytes of the pickles of all others together
_MAX_PER_NAME = 8  # of a name that is defined anew again and again

_small: dict[int, tuple[Key, Any, int]] = {}  # by number, in the order in which they were sent
large: dict[int, tuple[weakref.ref[Any], str, dict[str, Any]]] = {}  # with where each is found while it can be sent


def record(number: int, key: Key, value: Any, size: int, names: dict[str, Any]) -> None:
    """Take note of a definition that was pickled.

    number: what it is called in results. key: its name. size: bytes of its pickle. names: the globals that it is in.
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
    """Return the large definitions that a call may name which is pickled now, for its task to hold."""
    found = [(reference(), name, names) for reference, name, names in list(large.values())]
    return [value for value, name, names in found if value is not None and names.get(name) is value]
