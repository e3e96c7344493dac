"""The descriptors of a worker that is about to be born.

All are made before the fork: were there no number left afterwards, there would be a worker that nobody can watch.
The worker keeps its part (`keep_workers_part`), the host is sent its own, and the template closes all (`close`).
"""

from __future__ import annotations

import errno
import os

from pidfdpool.process import native
from pidfdpool.transport import black_box
from pidfdpool.worker.boot import PIDFD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pidfdpool.pidfd import ProcessHandle


class WorkerProcess:
    """A child that is a worker."""

    __slots__ = ("generation", "handle", "mark", "slot")

    def __init__(self, slot: int, generation: int, handle: ProcessHandle, mark: int) -> None:
        self.slot = slot
        self.generation = generation
        self.handle = handle
        self.mark = mark


class Birth:
    """Made in the template before one fork; used on both sides of it.

    Raises:
        OSError: no descriptor or memory left; nothing stays open.
    """

    def __init__(self, end: int | None, tokens: int | None, *, pidfds: bool, capture_stderr: bool) -> None:
        """Take over the worker's end of its channel, and its tokens, whatever happens. None: lost on the way."""
        self._open = {fd for fd in (end, tokens) if fd is not None}
        self.stderr: tuple[int, int] | None = None
        self.sentinel: tuple[int, int] | None = None
        try:
            if end is None or tokens is None:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            self.end, self.tokens = end, tokens
            self.blackbox = self._own(black_box.create())
            if capture_stderr:
                from pidfdpool.pidfd import sentinel_pipe

                self.stderr = sentinel_pipe()  # as pipes go: close-on-exec, and above the standard streams
                self._open.update(self.stderr)
            if pidfds:
                # Holds a number free for the pidfd, which can only be opened when there is a process.
                self._place = self._own(os.dup(self.blackbox))
            else:
                from pidfdpool.pidfd import sentinel_pipe

                self.sentinel = sentinel_pipe()
                self._open.update(self.sentinel)
        except BaseException:
            self.close()
            raise

    def _own(self, fd: int) -> int:
        self._open.add(fd)
        moved = native.above_stdio(fd)
        if moved != fd:
            self._open.remove(fd)
            self._open.add(moved)
        return moved

    def handle(self, pid: int) -> ProcessHandle:
        """Name the process that was forked. In the template.

        Raises:
            OSError: what the kernel has of descriptors is used up, all processes together.
        """
        if self.sentinel is None:
            self._close(self._place)
            from pidfdpool.pidfd import Pidfd  # not before: the first worker runs already

            return Pidfd.open(pid)
        from pidfdpool.pidfd import ChildHandle

        self._open.remove(self.sentinel[0])
        self._close(self.sentinel[1])  # the worker's sign of life must be the worker's alone
        return ChildHandle(self.sentinel[0], pid)

    def keep_workers_part(self) -> None:
        """Close what the worker does not need; what it is told of the rest is its own. In the worker."""
        self._open -= {self.end, self.tokens, self.blackbox, self.sentinel[1] if self.sentinel is not None else -1}
        if self.stderr is not None:
            os.dup2(self.stderr[1], 2)
        self.close()

    def close(self) -> None:
        """Close what is still this process's. Idempotent."""
        for fd in list(self._open):
            self._close(fd)

    def _close(self, fd: int) -> None:
        self._open.discard(fd)
        native.close(fd)


def own_handle(handles: str) -> list[int]:
    """Return a descriptor that is readable once this process is gone, and what it must keep open until then."""
    if handles == PIDFD:
        return [os.pidfd_open(os.getpid())]
    from pidfdpool.pidfd import sentinel_pipe

    return list(sentinel_pipe())
