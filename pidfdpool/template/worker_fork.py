"""Forks workers from the template, makes the descriptors that each of them needs, and finds those that live.

Called by `server`, in the template, on its only thread. `WorkerForker.fork` returns in the template only; the new
process runs a `Worker` and exits.

All descriptors of a worker are made before the fork. If no descriptor number were left afterwards, there would be a
worker that nobody can watch.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress

from pidfdpool.pidfd import prctl
from pidfdpool.process import hygiene, lifeline, native
from pidfdpool.process.native import signal
from pidfdpool.transport import black_box, framing
from pidfdpool.worker import mark
from pidfdpool.worker.boot import PIDFD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from pidfdpool.pidfd import ProcessHandle
    from pidfdpool.worker.boot import Boot


class WorkerProcess:
    """A child of the template that is a worker."""

    __slots__ = ("generation", "handle", "mark", "slot")

    def __init__(self, slot: int, generation: int, handle: ProcessHandle, mark: int) -> None:
        self.slot: int = slot
        self.generation: int = generation
        self.handle: ProcessHandle = handle
        self.mark: int = mark


class DescriptorRanges:
    """Descriptors of the template's, as ranges of adjacent numbers, so that a worker can close all of them at once.

    A worker is a copy of the template, and has copies of its handles of all other workers. To close these one by one
    would take as long as all else that a worker does at its birth once there are a few hundred, and would copy each
    page of memory in which a handle lies. Not thread-safe.
    """

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends: dict[int, int] = {}  # of each range: the first number, and the one after the last

    def add(self, fd: int) -> None:
        """Add a descriptor that is not among them."""
        first, end = fd, fd + 1
        for other, other_end in list(self._ends.items()):  # few: new descriptors fill the gaps
            if other_end == first or other == end:
                del self._ends[other]
                first, end = min(first, other), max(end, other_end)
        self._ends[first] = end

    def remove(self, fd: int) -> None:
        """Remove a descriptor that is among them."""
        first = next(first for first, end in self._ends.items() if first <= fd < end)
        end = self._ends.pop(first)
        if first < fd:
            self._ends[first] = fd
        if fd + 1 < end:
            self._ends[fd + 1] = end

    def close_in_worker(self) -> None:
        """Close all, by one system call for each range. In a worker that was just forked."""
        for first, end in self._ends.items():
            native.close_range(first, end)


class LivingWorkers:
    """The template's workers that are not reaped yet: what finds one of them without a look at all others.

    Not thread-safe.

    Attributes:
        by_pid: the workers. Only the template reaps, so no number is reused early.
        marks: theirs, and that of this process, if it has one.
        ranges: the descriptors of their handles.
    """

    __slots__ = ("_by_fd", "by_pid", "marks", "ranges")

    def __init__(self, own_mark: int | None) -> None:
        """own_mark: of this process, if the host of the pool is itself in a worker."""
        self.by_pid: dict[int, WorkerProcess] = {}
        self.marks: set[int | None] = {own_mark}
        self.ranges: DescriptorRanges = DescriptorRanges()
        self._by_fd: dict[int, WorkerProcess] = {}

    def add(self, worker: WorkerProcess) -> None:
        """Add one that was just forked."""
        self.by_pid[worker.handle.pid] = worker
        self.marks.add(worker.mark)
        self.ranges.add(worker.handle.fileno())
        self._by_fd[worker.handle.fileno()] = worker

    def remove(self, worker: WorkerProcess) -> None:
        """Remove one, whose handle is still open."""
        del self.by_pid[worker.handle.pid]
        self.marks.discard(worker.mark)
        self.ranges.remove(worker.handle.fileno())
        del self._by_fd[worker.handle.fileno()]

    def of_handle(self, fd: int) -> WorkerProcess | None:
        """Return the worker whose handle is this descriptor now."""
        return self._by_fd.get(fd)


class WorkerDescriptors:
    """The descriptors of one worker. Made in the template before the fork, and used on both sides of it.

    The worker keeps its part (`close_in_worker`), the host is sent its own, and the template closes all (`close`).

    Raises:
        OSError: no descriptor or memory left; nothing stays open.
    """

    def __init__(self, end: int | None, tokens: int | None, *, pidfds: bool, capture_stderr: bool) -> None:
        """Take over the worker's end of its channel, and its tokens, even if this raises. None: it did not arrive."""
        self._open = {fd for fd in (end, tokens) if fd is not None}
        self.stderr: tuple[int, int] | None = None
        self.sentinel: tuple[int, int] | None = None
        try:
            if end is None or tokens is None:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            self.end: int = end
            self.tokens: int = tokens
            self.black_box: int = self._add(black_box.create())
            if capture_stderr:
                from pidfdpool.pidfd import sentinel_pipe

                self.stderr = sentinel_pipe()  # a pipe that is close-on-exec and has numbers above 2
                self._open.update(self.stderr)
            if pidfds:
                # Reserves a number for the pidfd, which can be opened only when the process exists.
                self._reserved = self._add(os.dup(self.black_box))
            else:
                from pidfdpool.pidfd import sentinel_pipe

                self.sentinel = sentinel_pipe()
                self._open.update(self.sentinel)
        except BaseException:
            self.close()
            raise

    def _add(self, fd: int) -> int:
        moved = native.above_stdio(fd)
        self._open.add(moved)
        return moved

    def handle(self, pid: int) -> ProcessHandle:
        """Return a handle of the process that was forked. In the template.

        Raises:
            OSError: the kernel's limit of descriptors for all processes together is reached.
        """
        if self.sentinel is None:
            self._close(self._reserved)
            from pidfdpool.pidfd import Pidfd  # not before, because the first worker runs already

            return Pidfd.open(pid)
        from pidfdpool.pidfd import ChildHandle

        self._open.remove(self.sentinel[0])
        self._close(self.sentinel[1])  # the worker alone may hold the write end of its sentinel
        return ChildHandle(self.sentinel[0], pid)

    def close_in_worker(self) -> None:
        """Close what the worker does not need. What stays open belongs to the worker. In the worker."""
        self._open -= {self.end, self.tokens, self.black_box, self.sentinel[1] if self.sentinel is not None else -1}
        if self.stderr is not None:
            os.dup2(self.stderr[1], 2)
        self.close()

    def close(self) -> None:
        """Close what still belongs to this process. Idempotent."""
        for fd in list(self._open):
            self._close(fd)

    def _close(self, fd: int) -> None:
        self._open.discard(fd)
        native.close(fd)


class WorkerForker:
    """Forks workers.

    boot: what each worker is told. host_fd: readable once the host is gone. lifeline_fd: the lifeline's read end.
    close_in_worker: closes, in the new worker, the copies of the template's other descriptors.
    """

    def __init__(self, boot: Boot, host_fd: int, lifeline_fd: int, close_in_worker: Callable[[], None]) -> None:
        self._boot = boot
        self._host_fd = host_fd
        self._lifeline_fd = lifeline_fd
        self._close_in_worker = close_in_worker
        self._mark_prefix = mark.random_prefix()

    def new_descriptors(self, end: int | None, tokens: int | None) -> WorkerDescriptors:
        """Return the descriptors for one worker. As `WorkerDescriptors`."""
        pidfds = self._boot.handles == PIDFD
        return WorkerDescriptors(end, tokens, pidfds=pidfds, capture_stderr=self._boot.capture_stderr)

    def fork(self, slot: int, generation: int, cookie: int, descriptors: WorkerDescriptors) -> WorkerProcess:
        """Fork one worker. The caller closes the descriptors afterwards, whatever happens.

        cookie: the worker's frames to the host carry it; see `framing.cookie_bytes`.

        Raises:
            OSError: no process or descriptor left; there is no such worker.
        """
        template = os.getpid()
        worker_mark = mark.make(self._mark_prefix, generation)
        with hygiene.signals_blocked():
            pid = native.fork()
            if not pid:
                self._become_worker(slot, cookie, descriptors, template, worker_mark)
        # The group must exist before the host can signal it. The worker makes the same call; either may be first.
        with suppress(OSError):
            os.setpgid(pid, pid)
        try:
            handle = descriptors.handle(pid)
        except OSError:
            # Nobody could watch this worker. It is an unreaped child, so its number, the only name left, is its own.
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        return WorkerProcess(slot, generation, handle, worker_mark)

    def _become_worker(
        self, slot: int, cookie: int, descriptors: WorkerDescriptors, template: int, worker_mark: int
    ) -> NoReturn:
        status = 1
        try:
            hygiene.reset_signals()
            descriptors.close_in_worker()  # first, because from here on standard error may have to be captured
            hygiene.lead_group()
            with suppress(OSError):  # refused by a sandbox; the lifeline reports the host's end all the same
                prctl.set_parent_death_signal(signal.SIGKILL)
            if 0 <= os.getppid() != template:  # below 0: refused by a sandbox
                os._exit(status)  # the template died before the call above took effect
            self._close_in_worker()
            host_fd = lifeline.kill_me_at_end(self._lifeline_fd)
            if host_fd is None:
                host_fd = self._host_fd
            else:
                native.close(self._host_fd)
            native.close(self._lifeline_fd)
            module, name = self._boot.program
            program = getattr(sys.modules[module], name)
            hygiene.unblock_signals(getattr(program, "HELD_SIGNALS", ()))
            sentinel = descriptors.sentinel and descriptors.sentinel[1]
            end = native.socket_of(descriptors.end), framing.cookie_bytes(cookie)
            fds = descriptors.tokens, descriptors.black_box
            status = program(*end, slot, self._boot, host_fd, sentinel, *fds, mark.Mark(worker_mark)).run()
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            hygiene.flush_output()
            os._exit(status)
