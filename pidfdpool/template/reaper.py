"""Handles deaths in the template: it kills what a dead worker left behind, reaps the worker, and reports its status.

Called by `server`, on the template's only thread. It is loaded right after the first workers were forked. Until then
no worker can have died, and so the workers need not wait for the import. It is not loaded later, because the files of
this package may be replaced while the template runs.
"""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress

from pidfdpool.process import native
from pidfdpool.process.counters import REFUSALS
from pidfdpool.template import descendants
from pidfdpool.transport import framing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pidfdpool.template.worker_fork import LivingWorkers, WorkerProcess
    from pidfdpool.transport.framing import Buffer

EXIT_TIMEOUT = 0.5  # seconds to wait, at the end, until what was killed is dead and its own children were adopted


class Reaper:
    """Reaps all children of this process: workers, and orphans that it has adopted.

    workers: the template's. Dead workers are removed from them here.
    sigchld_pipe: readable when SIGCHLD has come.
    send: sends a frame to the host.
    """

    def __init__(
        self,
        workers: LivingWorkers,
        epoll: select.epoll,
        sigchld_pipe: int,
        send: Callable[[list[Buffer]], None],
    ) -> None:
        self._workers = workers
        self._epoll = epoll
        self._sigchld_pipe = sigchld_pipe
        self._send = send
        self._killed_orphans = False  # whether the last look found orphans

    def kill_workers(self) -> None:
        """Kill every worker with its process group."""
        for worker in self._workers.by_pid.values():
            descendants.kill_group(worker.handle)

    def reap_workers(self, fds: Iterable[int]) -> None:
        """Reap and report every worker that has ended. There may be a thousand others, at which nobody looks.

        fds: the descriptors of workers' handles that are readable.
        """
        self._reap_all()
        # It does not find a worker that a thread of the preload's has waited for.
        for fd in fds:
            # By now a descriptor may have become that of another worker, which lives.
            worker = self._workers.of_handle(fd)
            if worker is not None and not worker.handle.alive():
                self._reap_worker(worker)

    def _reap_worker(self, worker: WorkerProcess) -> None:
        # While the worker is a zombie, no other process can get its number, or a group with that number.
        descendants.kill_group(worker.handle)
        pid = worker.handle.pid
        try:
            reaped, status, usage = _wait_for(worker)
            report = framing.encode(
                framing.DIED, worker.slot, worker.generation, status, [framing.USAGE.pack(*usage)]
            )
        except ChildProcessError:
            # A thread of the preload's has reaped it. No report is sent: in a moment the host takes the status as
            # unknown.
            reaped, report = pid, None
        with suppress(OSError):
            self._epoll.unregister(worker.handle.fileno())
        if not reaped:
            return  # readable but not yet waitable (a tracer has it); SIGCHLD comes when it is
        # The handle does not know that the number is free now. Nothing is ever sent through it again.
        self._workers.remove(worker)
        worker.handle.close()
        if report is not None:
            self._send(report)

    def on_sigchld(self) -> None:
        """Reap every child that is dead, and kill what it left behind. Called after every death of a child."""
        with suppress(BlockingIOError):
            while os.read(self._sigchld_pipe, 4096):
                pass
        self._reap_all()
        self._killed_orphans = descendants.kill_orphans(self._workers.by_pid, self._workers.marks)

    def _reap_all(self) -> None:
        """Look at each dead child before it is reaped, because a worker's status must not be lost."""
        with suppress(ChildProcessError):
            while True:
                try:
                    dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                except OSError as error:
                    if error.errno in REFUSALS:
                        self._reap_each()
                        return
                    raise
                if dead is None:
                    return
                worker = self._workers.by_pid.get(dead.si_pid)
                if worker is not None:
                    self._reap_worker(worker)
                    if dead.si_pid in self._workers.by_pid:
                        return
                else:
                    os.waitid(os.P_PID, dead.si_pid, os.WEXITED | os.WNOHANG)

    def _reap_each(self) -> None:
        """Do the same where waitid is refused, and it is not possible to look before reaping."""
        for worker in list(self._workers.by_pid.values()):
            if not worker.handle.alive():
                self._reap_worker(worker)
        for pid in descendants.children():
            if pid not in self._workers.by_pid:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def kill_remaining(self) -> None:
        """Wait until the workers are dead, and kill what they left behind. Takes `EXIT_TIMEOUT` at most."""
        deadline = time.monotonic() + EXIT_TIMEOUT
        poller = native.poll()
        poller.register(self._sigchld_pipe, select.POLLIN)
        while True:
            self.on_sigchld()
            left = deadline - time.monotonic()
            if left <= 0 or not (self._workers.by_pid or self._killed_orphans):
                return
            poller.poll(left * 1000)


def _wait_for(worker: WorkerProcess) -> tuple[int, int, tuple[int, float]]:
    """Reap a worker if it has ended.

    Return the pid that was reaped, or 0; the wait status; and its peak memory in bytes with its processor time in
    seconds.
    """
    try:
        # By number, which is safe for an unreaped child. A pidfd does not tell the usage.
        pid, status, usage = os.wait4(worker.handle.pid, os.WNOHANG)
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        exit_status = worker.handle.exit_status()
        known = None if exit_status is None else exit_status.to_wait_status()
        return (0, 0, (0, 0.0)) if known is None else (worker.handle.pid, known, (0, 0.0))
    return pid, status, (usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime)
