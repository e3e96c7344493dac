"""The template's event loop: it serves the host's requests, and notices deaths.

Made by `process` when the template is ready, and run on the template's only thread. It waits for four things:

    the channel      a request is there. SPAWN: fork a worker, answer with its pidfd. STOP: kill everything and exit.
    the host's pidfd readable: the host is gone, in whatever way: kill the workers, exit.
    workers' pidfds  readable: kill what is left of the worker's process group, reap it, report how it died.
    the SIGCHLD pipe readable: some child died. Reap orphans of workers, which became children of the template because
                     it is their subreaper, and kill those whose worker is dead, wherever they went.

The SIGCHLD pipe does not contradict the rule that workers are not tracked by SIGCHLD. That rule protects the host's
handlers, and in this process there are none but ours. Without the pipe, orphans would stay zombies until something
else happened.
"""

from __future__ import annotations

import atexit
import errno
import os
import select
import sys
from contextlib import suppress

from pidfdpool.process import hygiene, lifeline, native
from pidfdpool.process.native import signal
from pidfdpool.serialization import scripts
from pidfdpool.template.worker_fork import LivingWorkers, WorkerForker
from pidfdpool.transport import framing
from pidfdpool.worker import mark

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from pidfdpool.template.reaper import Reaper
    from pidfdpool.template.worker_fork import WorkerDescriptors, WorkerProcess
    from pidfdpool.transport.channel import Channel
    from pidfdpool.transport.framing import Buffer, Frame
    from pidfdpool.worker.boot import Boot


class Server:
    """Serves one host until it is gone or says STOP. One per template.

    host_fd: readable once the host is gone. lifeline_fd: the lifeline's read end.
    sentinel_fds: descriptors that have to stay open as long as the template lives.
    """

    def __init__(
        self, channel: Channel, boot: Boot, host_fd: int, lifeline_fd: int, sentinel_fds: Sequence[int]
    ) -> None:
        self._channel = channel
        self._boot = boot
        self._host_fd = host_fd
        self._lifeline_fd = lifeline_fd
        self._tokens: int | None = None  # of the worker that the next SPAWN asks for
        self._workers = LivingWorkers(mark.of(0))
        self._stopping = False
        self._host_is_gone = False  # nobody is there to send anything to
        self._forker = WorkerForker(boot, host_fd, lifeline_fd, self._close_in_worker)
        self._reaper: Reaper | None = None
        self._sigchld_pipe, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._closed_in_worker = [*sentinel_fds, self._sigchld_pipe, write_end]
        with suppress(OSError):  # refused by a sandbox: orphans are reaped later
            native.set_signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        self._epoll = native.epoll()

    def run(self, early_requests: list[Frame]) -> None:
        """Serve until the host is gone, or it has said STOP and every worker has ended.

        early_requests: those that were read before this was made.
        """
        callbacks: dict[int, Callable[[], None]] = {
            self._channel.fileno(): self._on_channel,
            self._host_fd: self._on_host_gone,
            self._sigchld_pipe: self._on_sigchld,
        }
        for fd in callbacks:
            self._epoll.register(fd, select.EPOLLIN)
        self._serve(early_requests)
        if self._boot.has_preload:
            self._on_sigchld()  # a child of the preload's may have died before the pipe was there
        while not (self._stopping and not self._workers.by_pid):
            exited = []
            for fd, _ in self._epoll.poll():
                if fd in callbacks:
                    callbacks[fd]()
                else:  # a worker's pidfd, which can only report that the worker has ended
                    exited.append(fd)
            if exited:
                self._load_reaper().reap_workers(exited)
        self._kill_remaining()
        if self._boot.has_preload or scripts.ran_again:  # otherwise nobody can have registered exit functions
            # From here on this process does not watch the host any more.
            lifeline.signal_me_at_end(self._lifeline_fd, signal.SIGKILL)
            atexit._run_exitfuncs()
            hygiene.flush_output()

    # ---- requests ------------------------------------------------------------------------------------------

    def _on_channel(self) -> None:
        requests: Sequence[Frame] = ()
        try:
            requests = self._channel.receive()
        except framing.ProtocolError:
            sys.excepthook(*sys.exc_info())  # some other code writes into the host's end
            self._on_host_gone()
        except (EOFError, OSError):
            self._on_host_gone()  # or it has closed the channel, which means the same
        self._serve(requests)

    def _serve(self, requests: Sequence[Frame]) -> None:
        for frame in requests:
            if frame.kind == framing.TOKENS:
                self._tokens = self._channel.next_descriptor()
            elif frame.kind == framing.SPAWN:
                self._spawn(frame)
            elif frame.kind == framing.RUN_SCRIPT:
                from pidfdpool.template import guard

                guard.run_script(self._boot, self._host_fd)
            elif frame.kind == framing.START_TRACKER:
                self._start_tracker()
            elif frame.kind == framing.SIGNAL:
                self._signal_worker(frame)
            elif frame.kind == framing.STOP:
                self._stopping = True
                self._kill_workers()
        if self._workers.by_pid:
            self._load_reaper()  # the first workers run already, so they did not have to wait for it

    def _spawn(self, frame: Frame) -> None:
        end, tokens = self._channel.next_descriptor(), self._tokens
        self._tokens = None
        descriptors: WorkerDescriptors | None = None
        try:
            descriptors = self._forker.new_descriptors(end, tokens)
            worker = self._forker.fork(frame.slot, frame.generation, frame.value, descriptors)
        except OSError as error:
            number = error.errno or errno.EIO
            self._send(framing.encode(framing.SPAWN_FAILED, frame.slot, frame.generation, number))
        else:
            self._add_worker(worker, descriptors)
        finally:
            if descriptors is not None:
                descriptors.close()

    def _add_worker(self, worker: WorkerProcess, descriptors: WorkerDescriptors) -> None:
        """Watch the new worker, and send the host the descriptors with which it serves the worker."""
        handle = worker.handle
        self._workers.add(worker)
        self._epoll.register(handle.fileno(), select.EPOLLIN)
        self._send(framing.encode(framing.BLACK_BOX, worker.slot, worker.generation), descriptors.black_box)
        if descriptors.stderr is not None:
            self._send(framing.encode(framing.STDERR, worker.slot, worker.generation), descriptors.stderr[0])
        self._send(framing.encode(framing.SPAWNED, worker.slot, worker.generation, handle.pid), handle.fileno())

    def _start_tracker(self) -> None:
        fd = self._channel.next_descriptor()
        if fd is not None:  # otherwise no number was left, and multiprocessing finds that nobody reads the pipe
            try:
                from pidfdpool.template import tracker_process
            except ImportError:  # the host had changed its root directory before it was forked
                native.close(fd)
            else:
                tracker_process.start(fd)

    def _signal_worker(self, frame: Frame) -> None:
        for worker in self._workers.by_pid.values():
            if worker.slot == frame.slot and worker.generation == frame.generation:
                with suppress(OSError):
                    worker.handle.send_signal(frame.value, group=True)

    def _send(self, pieces: list[Buffer], descriptor: int | None = None) -> None:
        if self._host_is_gone:
            return
        try:
            self._channel.send(pieces, descriptor)
        except (BrokenPipeError, ConnectionResetError):
            self._on_host_gone()

    def _close_in_worker(self) -> None:
        """Close the template's descriptors in a worker that was just forked."""
        self._channel.close()
        self._epoll.close()
        self._workers.ranges.close_in_worker()
        for fd in self._closed_in_worker:
            native.close(fd)

    # ---- deaths --------------------------------------------------------------------------------------------

    def _load_reaper(self) -> Reaper:
        if self._reaper is None:
            from pidfdpool.template.reaper import Reaper

            self._reaper = Reaper(self._workers, self._epoll, self._sigchld_pipe, self._send)
        return self._reaper

    def _on_sigchld(self) -> None:
        self._load_reaper().on_sigchld()

    def _on_host_gone(self) -> NoReturn:
        self._host_is_gone = True
        self._kill_workers()
        self._kill_remaining()
        os._exit(0)

    def _kill_workers(self) -> None:
        if self._workers.by_pid:
            self._load_reaper().kill_workers()

    def _kill_remaining(self) -> None:
        if self._reaper is not None:  # otherwise nothing was ever started
            self._reaper.kill_remaining()
