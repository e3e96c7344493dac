"""The calls of prctl(2) that a pool needs and Python lacks.

Called in the template, its guard and the workers, on their only thread.

It uses `_ctypes`, on which `ctypes` is built, because each start of a template loads it, and the rest of `ctypes`
would take two milliseconds more. It is loaded at the first call.
"""

from __future__ import annotations

import os
from contextlib import suppress

from pidfdpool.process import native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SET_PDEATHSIG = 1
_SET_NAME = 15
_SET_CHILD_SUBREAPER = 36
_GET_CHILD_SUBREAPER = 37

_call: Any = None
_types: dict[str, Any] = {}


def _number(code: str, value: int = 0) -> Any:
    """Return a C number: "i" is an int, "L" an unsigned long."""
    native.load_ctypes()
    import _ctypes

    if code not in _types:
        _types[code] = type(code, (_ctypes._SimpleCData,), {"_type_": code})
    return _types[code](value)


def _prctl(option: int, argument: object) -> None:
    global _call  # noqa: PLW0603  once is enough
    native.load_ctypes()
    import _ctypes

    library: Any = None  # means all libraries that this process has loaded
    if _call is None:
        flags = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
        kind: Any = type("prctl", (_ctypes.CFuncPtr,), {"_flags_": flags, "_restype_": type(_number("i"))})
        _call = kind(_ctypes.dlsym(_ctypes.dlopen(library, 0), "prctl"))
    if _call(_number("i", option), argument, *(_number("L") for _ in range(3))) != 0:
        number = _ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def set_child_subreaper(on: bool) -> None:
    """Make this process the parent of its orphaned descendants, or end that (Linux 3.4). Not inherited by a fork."""
    _prctl(_SET_CHILD_SUBREAPER, _number("L", on))


def get_child_subreaper() -> bool:
    """Return whether this process is a child subreaper."""
    native.load_ctypes()
    import _ctypes

    answer = _number("i")
    _prctl(_GET_CHILD_SUBREAPER, _ctypes.byref(answer))
    return bool(answer.value)


def set_parent_death_signal(number: int) -> None:
    """Have the kernel send this signal when the *thread* of the parent that forked this process ends; 0: no signal.

    The parent may have ended before the call. So compare os.getppid() afterwards. Cleared by a fork.
    """
    _prctl(_SET_PDEATHSIG, _number("L", number))


def set_name(name: str) -> None:
    """Set the calling thread's name in ps and top, if that is allowed. The kernel keeps the first 15 bytes."""
    with suppress(OSError):
        _prctl(_SET_NAME, name.encode()[:15])
