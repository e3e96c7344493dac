"""Tasks that compute for so long, and the total of all of them, which the host reads without being told."""

from __future__ import annotations

import mmap
import struct
import time

_TOTAL = struct.Struct("d")
_totals: dict[str, mmap.mmap] = {}


def spin(seconds: float, path: str) -> None:
    """Compute for so long, and add that to the total in a file."""
    if path not in _totals:
        with open(path, "r+b") as file:
            _totals[path] = mmap.mmap(file.fileno(), _TOTAL.size)
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        pass
    (before,) = _TOTAL.unpack_from(_totals[path])
    _TOTAL.pack_into(_totals[path], 0, before + seconds)


def spun(path: str) -> float:
    """Return the total in the file."""
    with open(path, "rb") as file:
        return float(_TOTAL.unpack(file.read(_TOTAL.size))[0])


def new_total(path: str) -> None:
    """Make the file, with a total of nothing."""
    with open(path, "wb") as file:
        file.write(_TOTAL.pack(0.0))
