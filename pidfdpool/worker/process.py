"""The loop of a worker: read a task, run it, write what came of it.

One thread, blocking I/O, one channel to the host. A worker is never in the middle of two things, so its death can
cost one task at most. It ends when the host says LEAVE or closes the channel, or when the template dies.

Nothing that a task raises ends a worker: SystemExit and KeyboardInterrupt are the outcome of that task, too.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pidfdpool import hygiene, payload, wire
from pidfdpool.channel import Channel
from pidfdpool.pidfd import prctl
from pidfdpool.worker import identity

if TYPE_CHECKING:
    import socket

    from pidfdpool.template.boot import Boot
    from pidfdpool.wire import Buffer, Frame


class Worker:
    """One worker process. Made and run on its only thread, right after the fork."""

    def __init__(self, end: socket.socket, slot: int, boot: Boot, host_fd: int, sentinel: int | None) -> None:
        self._channel = Channel(end)
        self._slot = slot
        self._boot = boot
        self._host_fd = host_fd
        self._pid = os.getpid()
        self._shared = payload.AllShared() if boot.forked else None
        self._sentinel = sentinel  # the fallback's sign of life, held open until this process ends
        # A process that a task forks must not hold the channel: the host would not see that the worker closed it.
        os.register_at_fork(after_in_child=self._close_in_forked_child)

    def run(self) -> int:
        """Run tasks until there are to be no more; return the exit code."""
        prctl.set_name(f"pidfd-worker{self._slot}")
        hygiene.start_faulthandler()
        hygiene.forget_exit_functions()
        identity.assume(self._slot, self._boot, self._host_fd)
        try:
            if not self._initialize():
                return 1
            self._channel.send(wire.encode(wire.READY))
            while True:
                for frame in self._channel.receive():
                    if frame.kind == wire.LEAVE:
                        return self._finish()
                    self._channel.send(self._outcome(frame))
                    del frame
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return self._finish()  # the host has no use for us any more

    def _initialize(self) -> bool:
        try:
            self._boot.run_initializer()
        except BaseException as error:
            # Said by the same logger, in the same words, as in the standard library's workers.
            import logging

            logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
            self._channel.send(wire.encode(wire.INITIALIZER_FAILED, buffers=payload.dump_error(error)))
            return False
        return True

    def _outcome(self, frame: Frame) -> list[Buffer]:
        """Run the task and return the frame to answer with. Holds on to nothing of the task's."""
        try:
            function, arguments, keywords = payload.loads(frame.buffers)
            frame.buffers.clear()
            result = function(*arguments, **keywords)
            del function, arguments, keywords
            self._leave_if_forked()
            kind, buffers = wire.RESULT, payload.dumps(result, self._shared)
        except BaseException as error:
            self._leave_if_forked()
            kind, buffers = wire.ERROR, payload.dump_error(_without_this_frame(error), self._shared)
        hygiene.flush_output()
        return wire.encode(kind, value=frame.value, buffers=buffers)

    def _leave_if_forked(self) -> None:
        """End a process that a task forked and that came back out of the task: it is no worker."""
        if os.getpid() != self._pid:
            hygiene.flush_output()
            os._exit(0)

    def _close_in_forked_child(self) -> None:
        self._channel.close()
        if self._sentinel is not None:
            with suppress(OSError):
                os.close(self._sentinel)
            self._sentinel = None

    def _finish(self) -> int:
        """Do what an interpreter does at its end: join threads, call exit functions, end child processes."""
        import atexit

        for step in (threading._shutdown, atexit._run_exitfuncs, _end_multiprocessing):  # type: ignore[attr-defined]
            try:
                step()
            except BaseException:
                sys.excepthook(*sys.exc_info())
        hygiene.flush_output()
        return 0


def _without_this_frame(error: BaseException) -> BaseException:
    """Start the traceback where the task's own code starts."""
    if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
        BaseException.__dict__["__traceback__"].__set__(error, error.__traceback__.tb_next)
    return error


def _end_multiprocessing() -> None:
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._exit_function()
