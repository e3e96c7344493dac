"""sigaction(2) itself, for what the `signal` module cannot say."""

from __future__ import annotations

import ctypes
import os
import signal

_SA_NOCLDWAIT = 2


class _Action(ctypes.Structure):
    _fields_ = [
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    ]


def let_children_vanish() -> None:
    """Give SIGCHLD its default effect with SA_NOCLDWAIT: children leave no zombie, and wait() tells nothing."""
    action = _Action(handler=int(signal.SIG_DFL), flags=_SA_NOCLDWAIT)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.sigaction(int(signal.SIGCHLD), ctypes.byref(action), None) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
