"""What the workers do in the scenarios. Loads little: workers that are no copy of the host import it."""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import time

_TOTAL = struct.Struct("d")
_totals: dict[str, mmap.mmap] = {}


def nothing(value: object) -> None:
    """Take an argument and return nothing: what is left is the pool's own cost."""


def echo(value: object) -> object:
    """Send the argument back."""
    return value


def pid_after(seconds: float) -> int:
    """Sleep, so that other workers get a task too, and tell whose work this was."""
    time.sleep(seconds)
    return os.getpid()


def kill_self() -> None:
    """Die as by the out-of-memory killer."""
    os.kill(os.getpid(), signal.SIGKILL)


def transform(document: bytes) -> bytes:
    """Parse a document, change it everywhere, and write it anew."""
    return json.dumps(_rounded(json.loads(document))).encode()


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return round(value, 3) if isinstance(value, float) else value


def wait_for(path: str) -> None:
    """Keep the worker until a file exists."""
    while not os.path.exists(path):
        time.sleep(0.001)


def spin(seconds: float, path: str) -> None:
    """Compute for so long, and add that to the total in a file, where the host reads it without being told."""
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
