"""What the template does about deaths: it kills what a worker leaves behind, reaps it, and reports how it died.

On the template's only thread. Loaded when the first workers are there: until then nobody can have died, and they need
not wait for it. Not later than that either: the files of this package may be replaced while the template runs.
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
    from collections.abc import Callable

    from pidfdpool.template.birth import WorkerProcess
    from pidfdpool.transport.framing import Buffer

LAST_SWEEP = 0.5  # seconds to wait, at the end, for what was killed to be dead and to show its own children


class Undertaker:
    """Whatever dies below this process comes to it.

    workers: the template's, by pid; the dead are taken out here.
    doorbell: a pipe that is readable when SIGCHLD came.
    """

    def __init__(
        self,
        workers: dict[int, WorkerProcess],
        epoll: select.epoll,
        doorbell: int,
        tell: Callable[[list[Buffer]], None],
        own_mark: int | None,
    ) -> None:
        self._workers = workers
        self._epoll = epoll
        self._doorbell = doorbell
        self._tell = tell
        self._own_mark = own_mark
        self._strays = False  # whether there was something to kill when we last looked

    def kill_workers(self) -> None:
        """Kill every worker with its process group."""
        for worker in self._workers.values():
            descendants.kill_group(worker.handle)

    def bury_the_dead(self) -> None:
        """Bury every worker that has ended."""
        self._reap_all()  # one call finds them, however many workers there are
        # What a thread of the preload's has waited for is not found so.
        for worker in list(self._workers.values()):
            if not worker.handle.alive():
                self._bury(worker)

    def _bury(self, worker: WorkerProcess) -> None:
        # While the worker is a zombie its number, and with it the group's, cannot be taken by anybody else.
        descendants.kill_group(worker.handle)
        pid = worker.handle.pid
        try:
            reaped, status, spent = _reap(worker)
            told = framing.encode(framing.DIED, worker.slot, worker.generation, status, [framing.USAGE.pack(*spent)])
        except ChildProcessError:
            # A thread of the preload's took it. Nothing is said: in a moment the host calls the status unknown.
            reaped, told = pid, None
        with suppress(OSError):
            self._epoll.unregister(worker.handle.fileno())
        if not reaped:
            return  # readable but not yet waitable (a tracer has it); the doorbell rings when it is
        # The handle does not know that the number is free now; nothing is ever sent through it again.
        del self._workers[pid]
        worker.handle.close()
        if told is not None:
            self._tell(told)

    def answer(self) -> None:
        """Reap whatever is dead, and kill what it leaves behind. Every death of a child's leads here."""
        with suppress(BlockingIOError):
            while os.read(self._doorbell, 4096):
                pass
        self._reap_all()
        marks = {self._own_mark, *(worker.mark for worker in self._workers.values())}
        self._strays = descendants.kill_strays(self._workers, marks)

    def _reap_all(self) -> None:
        """Look before reaping, because a worker's status must not be lost."""
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
                worker = self._workers.get(dead.si_pid)
                if worker is not None:
                    self._bury(worker)
                    if dead.si_pid in self._workers:
                        return
                else:
                    os.waitid(os.P_PID, dead.si_pid, os.WEXITED | os.WNOHANG)

    def _reap_each(self) -> None:
        """Do the same where waitid is refused, and nobody can look before reaping."""
        for worker in list(self._workers.values()):
            if not worker.handle.alive():
                self._bury(worker)
        for pid in descendants.children():
            if pid not in self._workers:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def sweep_out(self) -> None:
        """See the workers dead, and all that they leave; for no longer than the end may take."""
        deadline = time.monotonic() + LAST_SWEEP
        poller = native.poll()
        poller.register(self._doorbell, select.POLLIN)
        while True:
            self.answer()
            left = deadline - time.monotonic()
            if left <= 0 or not (self._workers or self._strays):
                return
            poller.poll(left * 1000)


def _reap(worker: WorkerProcess) -> tuple[int, int, tuple[int, float]]:
    """Return the number that was reaped, or 0; the wait status; the peak of its memory and its processor time."""
    try:
        pid, status, usage = os.wait4(worker.handle.pid, os.WNOHANG)  # its own child's number; pidfds tell no usage
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        ended = worker.handle.exit_status()
        told = None if ended is None else ended.to_wait_status()
        return (0, 0, (0, 0.0)) if told is None else (worker.handle.pid, told, (0, 0.0))
    return pid, status, (usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime)
