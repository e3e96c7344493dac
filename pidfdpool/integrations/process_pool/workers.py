"""The workers of a pool, as code for `multiprocessing.Pool` looks at them (`pool._pool`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidfdpool.pidfd import Pidfd

if TYPE_CHECKING:
    from pidfdpool import WorkerInfo


class Worker:
    """One worker: those attributes of a `multiprocessing.Process` that others read."""

    def __init__(self, info: WorkerInfo) -> None:
        assert info.pid is not None
        self.pid: int = info.pid
        self.name: str = f"PidfdPoolWorker-{info.slot}"
        self.daemon: bool = True

    @property
    def ident(self) -> int:
        """The pid."""
        return self.pid

    def is_alive(self) -> bool:
        """Return whether the process exists and has not ended."""
        try:
            with Pidfd.open(self.pid) as handle:
                return handle.alive()
        except ProcessLookupError:
            return False

    def __repr__(self) -> str:
        return f"<worker {self.name} pid={self.pid}>"
