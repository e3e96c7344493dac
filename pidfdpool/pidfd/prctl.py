"""What of prctl(2) a pool needs and Python lacks. ctypes is loaded at the first call."""

from __future__ import annotations

import os
from typing import Any

_SET_PDEATHSIG = 1
_SET_NAME = 15
_SET_CHILD_SUBREAPER = 36
_GET_CHILD_SUBREAPER = 37

_libc: Any = None


def _prctl(option: int, argument: object) -> None:
    global _libc  # noqa: PLW0603  loading it takes milliseconds
    import ctypes

    if _libc is None:
        _libc = ctypes.CDLL(None, use_errno=True)
    if _libc.prctl(ctypes.c_int(option), argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def set_child_subreaper(on: bool) -> None:
    """Become the one to whom orphaned descendants are given, or no longer (Linux 3.4). Not inherited by a fork."""
    import ctypes

    _prctl(_SET_CHILD_SUBREAPER, ctypes.c_ulong(on))


def get_child_subreaper() -> bool:
    """Return whether this process is a child subreaper."""
    import ctypes

    answer = ctypes.c_int()
    _prctl(_GET_CHILD_SUBREAPER, ctypes.byref(answer))
    return bool(answer.value)


def set_parent_death_signal(number: int) -> None:
    """Have the kernel send this signal when the parent's *thread* that forked this process ends; 0: none.

    The parent may have ended before: compare os.getppid() afterwards. Cleared by a fork.
    """
    import ctypes

    _prctl(_SET_PDEATHSIG, ctypes.c_ulong(number))


def set_name(name: str) -> None:
    """Name the calling thread, for ps and top; the kernel keeps the first 15 bytes."""
    _prctl(_SET_NAME, name.encode()[:15])
