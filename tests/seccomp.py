"""Real seccomp filters, for processes that have to believe in an older kernel or a stricter sandbox.

A filter cannot be taken off again: install it in a process of its own, as with

    run_python(seccomp.PRELUDE + 'deny(["pidfd_open"], errno.ENOSYS)\n' + script)
"""

from __future__ import annotations

import ctypes
import platform
import struct
from collections.abc import Iterable

_ARCHITECTURES = {  # AUDIT_ARCH_*, and the numbers of the system calls
    "x86_64": (0xC000003E, {"waitid": 247, "pidfd_send_signal": 424, "pidfd_open": 434, "ioctl": 16}),
    "aarch64": (0xC00000B7, {"waitid": 95, "pidfd_send_signal": 424, "pidfd_open": 434, "ioctl": 29}),
}

SUPPORTED = platform.machine() in _ARCHITECTURES and ctypes.sizeof(ctypes.c_void_p) == 8

PRELUDE = "import errno\nfrom tests.seccomp import deny\n"

_SET_NO_NEW_PRIVS = 38  # prctl(2)
_SET_SECCOMP, _MODE_FILTER = 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4  # in struct seccomp_data
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]  # struct sock_fprog


def deny(syscalls: Iterable[str], errno: int) -> None:
    """Have these system calls fail with errno, in this thread and all that it starts from now on."""
    architecture, numbers = _ARCHITECTURES[platform.machine()]
    wanted = [numbers[name] for name in syscalls]

    def step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("=HBBI", code, if_true, if_false, value)

    steps = [step(_LOAD, _ARCHITECTURE_AT), step(_JUMP_IF_EQUAL, architecture, 1), step(_RETURN, _ALLOW)]
    steps.append(step(_LOAD, _NUMBER_AT))
    for left, number in zip(range(len(wanted), 0, -1), wanted, strict=True):
        steps.append(step(_JUMP_IF_EQUAL, number, left))  # over the other questions and the permission
    steps += [step(_RETURN, _ALLOW), step(_RETURN, _ERRNO | errno)]

    code = b"".join(steps)
    program = _Program(len(steps), code)
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    for arguments in (
        (_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero),
        (_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), ctypes.byref(program), zero, zero),
    ):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), f"prctl{arguments[:1]} refused")
