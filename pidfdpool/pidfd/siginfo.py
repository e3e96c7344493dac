"""Sends signals that carry a value. Loaded at the first use, because it needs `ctypes`.

Called by `Pidfd.send_signal`, in any process, on any thread. Python's own pidfd_send_signal takes no siginfo_t.
"""

from __future__ import annotations

import os

from pidfdpool.process import native

native.load_ctypes()
import ctypes  # noqa: E402

_PIDFD_SEND_SIGNAL = 424  # the same number on every architecture (Linux 5.1)
_SI_QUEUE = -1


class _Siginfo(ctypes.Structure):
    """siginfo_t as sigqueue(3) fills it on 64-bit and 32-bit Linux: the union is aligned like a pointer."""

    class _Queued(ctypes.Structure):
        _fields_ = [("pid", ctypes.c_int), ("uid", ctypes.c_uint), ("value", ctypes.c_void_p)]

    _fields_ = [
        ("signo", ctypes.c_int),
        ("errno", ctypes.c_int),
        ("code", ctypes.c_int),
        ("queued", _Queued),
        ("padding", ctypes.c_byte * 128),
    ]


def send_with_value(fd: int, sig: int, value: int, flags: int) -> None:
    """Do as pidfd_send_signal(2) with SI_QUEUE and the value. Raises OSError."""
    info = _Siginfo(signo=sig, code=_SI_QUEUE)
    info.queued.pid = os.getpid()
    info.queued.uid = os.getuid()
    info.queued.value = value & (2 ** (8 * ctypes.sizeof(ctypes.c_void_p)) - 1)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_PIDFD_SEND_SIGNAL, fd, sig, ctypes.byref(info), flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
