"""How a host moves to a file system of its own. Root only; each is for the calling process and what it starts."""

from __future__ import annotations

import ctypes
import os

_CLONE_NEWNS = 0x00020000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(answer: int) -> None:
    if answer != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def have_own_mounts() -> None:
    """Mount and unmount unseen by anybody else from now on."""
    _check(_libc.unshare(_CLONE_NEWNS))
    _check(_libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None))


def unmount(path: str) -> None:
    """Take away what is mounted there, and beneath it, even if it is in use."""
    _check(_libc.umount2(path.encode(), _MNT_DETACH))


def hide(path: str) -> None:
    """Have an empty directory in that place, into which nobody can write."""
    _check(_libc.mount(b"none", path.encode(), b"tmpfs", _MS_RDONLY, b"size=4k"))


def cover(path: str) -> None:
    """Have an empty directory in that place."""
    _check(_libc.mount(b"none", path.encode(), b"tmpfs", 0, b"size=64m"))


def hide_file(path: str, behind: str) -> None:
    """Have another file in the place of this one."""
    _check(_libc.mount(behind.encode(), path.encode(), None, _MS_BIND, None))


def make_read_only(path: str) -> None:
    """Have the whole file system there read-only."""
    _check(_libc.mount(path.encode(), path.encode(), None, _MS_BIND | _MS_REC, None))
    _check(_libc.mount(None, path.encode(), None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY, None))
