"""A real seccomp filter for tests: makes system calls fail in this process and in all that it starts.

Irrevocable, so it is for processes of their own: `from tests.seccomp import deny; deny({434}, errno.ENOSYS)`.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

PIDFD_SEND_SIGNAL = 424
PIDFD_OPEN = 434

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06


class _Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def deny(calls: Iterable[int], number: int, *, when_argument_3_is: int | None = None) -> None:
    """Have the system calls fail with the errno; only for a certain fourth argument, if one is given."""
    instructions = [(_LOAD_WORD, 0, 0, 0)]  # seccomp_data.nr
    for call in calls:
        if when_argument_3_is is None:
            instructions += [(_JUMP_IF_EQUAL, 0, 1, call), (_RETURN, 0, 0, _ERRNO | number)]
        else:
            instructions += [
                (_JUMP_IF_EQUAL, 0, 4, call),
                (_LOAD_WORD, 0, 0, 16 + 3 * 8),  # seccomp_data.args[3], its low half
                (_JUMP_IF_EQUAL, 0, 1, when_argument_3_is),
                (_RETURN, 0, 0, _ERRNO | number),
                (_LOAD_WORD, 0, 0, 0),
            ]
    instructions.append((_RETURN, 0, 0, _ALLOW))
    code = b"".join(struct.pack("<HBBI", *instruction) for instruction in instructions)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(instructions), ctypes.cast(buffer, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program)),
    ):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
