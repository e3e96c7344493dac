"""Black boxes that are shorter than they should be, as where the disk was full."""

from __future__ import annotations

import os


def cut_off(box: int, size: int) -> None:
    """Have the descriptor lead to a copy of the box that ends there. The box itself is sealed against that."""
    copy = os.memfd_create("cut-box", os.MFD_CLOEXEC)
    os.pwrite(copy, os.pread(box, size, 0), 0)
    os.ftruncate(copy, size)
    os.dup2(copy, box, inheritable=False)
    os.close(copy)
