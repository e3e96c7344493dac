"""`ExitStatus`: how a process ended, as a value. Pure.

Made by handles, in any process, on any thread; stored in errors, and sent over channels as a wait status.
"""

from __future__ import annotations

import os
from collections import namedtuple

from pidfdpool.pidfd.errors import signal_name
from pidfdpool.process import describe
from pidfdpool.typed import typing

TYPE_CHECKING = False
_MAX = 0xFFFF  # the largest status of wait(2)
_CORE = 0x80  # the bit that WCOREDUMP tests (wait(2))


if TYPE_CHECKING:

    class _Fields(typing.NamedTuple):
        code: int | None = None
        signal: int | None = None
        core_dumped: bool = False
        unknown: bool = False

else:
    _Fields = namedtuple("_Fields", ("code", "signal", "core_dumped", "unknown"), defaults=(None, None, False, False))


class ExitStatus(_Fields):
    """How a process ended: with a code, by a signal, or in an unknown way.

    Exactly one of `code` (0 to 255), `signal` (a number) and `unknown` is set. Immutable and hashable.
    """

    __slots__ = ()

    UNKNOWN: typing.ClassVar[ExitStatus]

    @classmethod
    def from_wait_status(cls, status: int) -> typing.Self:
        """Decode a status of wait(2) or PIDFD_GET_INFO.

        Raises:
            ValueError, TypeError: the status is not that of a process that ended.
        """
        if not isinstance(status, int):
            raise TypeError(f"status must be an integer, not {describe.repr_of(status)}")
        if not 0 <= status <= _MAX:
            raise ValueError(f"{status!r} is not the wait status of a process that ended")
        if os.WIFEXITED(status):
            return cls(code=os.WEXITSTATUS(status))
        if os.WIFSIGNALED(status):
            return cls(signal=os.WTERMSIG(status), core_dumped=os.WCOREDUMP(status))
        raise ValueError(f"{status!r} is not the wait status of a process that ended")

    @classmethod
    def from_waitid(cls, result: os.waitid_result) -> typing.Self:
        """Decode a result of os.waitid for a process that ended (si_code CLD_EXITED, CLD_KILLED or CLD_DUMPED).

        Raises:
            ValueError: it reports a stop, a trap or a continuation.
        """
        if result.si_code == os.CLD_EXITED:
            return cls(code=result.si_status)
        if result.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
            return cls(signal=result.si_status, core_dumped=result.si_code == os.CLD_DUMPED)
        raise ValueError(f"si_code {result.si_code} is not that of a process that ended")

    def to_wait_status(self) -> int | None:
        """Encode as wait(2) does; None if unknown."""
        if self.signal is not None:
            return self.signal | (_CORE if self.core_dumped else 0)
        return None if self.code is None else self.code << 8

    @property
    def returncode(self) -> int | None:
        """The number that `subprocess` would show: negative for a signal, None if unknown."""
        return -self.signal if self.signal is not None else self.code

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed by {signal_name(self.signal)}{' (core dumped)' if self.core_dumped else ''}"
        return "exit status unknown" if self.code is None else f"exited with code {self.code}"

    def __repr__(self) -> str:
        return f"<ExitStatus: {self}>"


ExitStatus.UNKNOWN = ExitStatus(unknown=True)
