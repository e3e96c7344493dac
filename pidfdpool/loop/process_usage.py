"""Reads what proc(5) tells of a living process.

proc(5) names processes by number. So after the call the caller has to check that the process is still alive, because
otherwise the number may belong to another one by now.
"""

from __future__ import annotations

import os
from typing import NamedTuple

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")


def resident(pid: int, segments: int = 0) -> int | None:
    """Return the resident memory of a process in bytes (proc(5), statm).

    segments: bytes of shared memory that it has mapped and that do not count, as far as it is resident.
    """
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            pages, shared = map(int, file.read().split()[1:3])
            return pages * _PAGE - min(segments, shared * _PAGE) or None
    except (OSError, ValueError):
        return None


def processor_time(pid: int) -> float | None:
    """Return the processor time of a process in seconds (proc(5), stat)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / _TICK


class SignalMasks(NamedTuple):
    """What a process does with each signal, as bit masks (proc(5), status): the lowest bit is for signal 1."""

    pending: int
    blocked: int
    ignored: int
    caught: int

    def survives(self, number: int) -> bool:
        """Return whether the process is not ended by a signal that would end one that had never heard of it."""
        return bool((self.blocked | self.ignored | self.caught) >> (number - 1) & 1)

    def awaits(self, number: int) -> bool:
        """Return whether that signal was sent to the process, which has not received it yet."""
        return bool(self.pending >> (number - 1) & 1)


def signal_masks(pid: int) -> SignalMasks | None:
    """Return what a process does with each signal; None: that cannot be read."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = dict(line.split(b":", 1) for line in file.read().splitlines())
            return SignalMasks(*(int(lines[name], 16) for name in (b"ShdPnd", b"SigBlk", b"SigIgn", b"SigCgt")))
    except (OSError, ValueError, KeyError):
        return None
