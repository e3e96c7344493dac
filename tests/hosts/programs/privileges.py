"""How a host that runs as root becomes another user for good, as servers do."""

from __future__ import annotations

import ctypes
import os
import struct

_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 4, 8, 38, 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_READ_SEARCH = 2
_CAPABILITIES_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _check(answer: int) -> None:
    if answer != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def become(uid: int) -> None:
    """Become a user who may do nothing in particular, but read the interpreter's files wherever they lie.

    That one right, CAP_DAC_READ_SEARCH, is handed down to what is executed.
    """
    _check(_libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    header = struct.pack("=Ii", _CAPABILITIES_VERSION_3, 0)
    one = 1 << _CAP_DAC_READ_SEARCH
    _check(_libc.capset(header, struct.pack("=6I", one, one, one, 0, 0, 0)))
    _check(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_READ_SEARCH, 0, 0))
    _check(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0))


def want_no_new_privileges() -> None:
    """Have nothing that is executed gain any right."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def be_undumpable() -> None:
    """Hide this process from others of its user: no core file, and its /proc belongs to root."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))
