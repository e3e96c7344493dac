"""The host's end of one worker: channel, pipe, pidfd, and what is known of the process. Of the template see there.

Any thread may write to a link, under the pool's lock. Only the pool thread or the leader reads from it. The pool
thread closes it; if there could be no pool thread, the thread that tried to start it does.
"""

from __future__ import annotations

import logging
import signal
from contextlib import suppress
from termios import FIONREAD
from typing import TYPE_CHECKING, TypeVar

from pidfdpool.loop import process_usage, stacks
from pidfdpool.loop.answers import Answers
from pidfdpool.loop.death_reports import Evidence
from pidfdpool.loop.poller import READ, WRITE
from pidfdpool.loop.progress import Progress
from pidfdpool.loop.segment_account import SegmentAccount
from pidfdpool.loop.worker_stderr import Stderr
from pidfdpool.process import native
from pidfdpool.transport import black_box, frame_rules, framing, published
from pidfdpool.transport.channel import Channel, new_cookie

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pidfdpool.loop.poller import Poller, Watch
    from pidfdpool.pidfd import ExitStatus, ProcessHandle
    from pidfdpool.process.log_levels import Levels
    from pidfdpool.process.native import Socket
    from pidfdpool.transport.framing import Buffer, Frame, Lean
    from pidfdpool.transport.published import Published

T = TypeVar("T")

_log = logging.getLogger("pidfdpool")

# Seconds to wait for the template's report of how a worker ended, after its pidfd became readable. The report comes
# within a millisecond, unless the template is stopped.
REPORT_GRACE = 1.0

# The same if the template is gone. The process that inherited the worker reaps it in a moment. From then on the pidfd
# itself tells the status (Linux 6.15). The worker's slot waits no longer than this.
ORPHAN_GRACE = 0.05


class Link:
    """A channel that the pool thread serves, and the process at its other end."""

    _served_by_leader = False  # the leader reads the channel, too

    def __init__(self, channel: Channel, poller: Poller) -> None:
        self.channel = channel
        self.source: Channel | Answers = channel  # what is read
        self.handle: ProcessHandle | None = None
        self._poller = poller
        self._channel_watch: Watch | None = None
        self._exit_watch: Watch | None = None

    def watch_channel(self, callback: Callable[[int], None]) -> None:
        """Have the channel served by the pool thread."""
        self._channel_watch = self._poller.watch(self.channel.fileno(), callback, inner=self._served_by_leader)

    def watch_exit(self, handle: ProcessHandle, callback: Callable[[int], None]) -> None:
        """Take the handle of the process and have its end noticed."""
        self.handle = handle
        self._exit_watch = self._poller.watch(handle.fileno(), callback)

    def post(self, pieces: Sequence[Buffer], descriptor: int | None = None, *, large: bool = False) -> None:
        """Send without waiting. Raises OSError if the process is gone and nothing was sent."""
        self.channel.send_nowait(pieces, descriptor, large=large)
        if self.channel.has_unsent and self._channel_watch is not None:
            self._poller.change(self._channel_watch, READ | WRITE)

    def flush(self) -> None:
        """Send what is unsent. If nothing is left, wait no longer for the channel to take more."""
        try:
            done = self.channel.flush()
        except OSError:
            done = True  # it is dying; its tokens tell later which of its tasks it never began
        if done and self._channel_watch is not None:
            self._poller.change(self._channel_watch, READ)

    def read(self, receive: Callable[[], list[Frame | Lean]] | None = None) -> Sequence[Frame | Lean]:
        """Return what frames there are; at the end watch for no more. receive: the way to read, if not the usual.

        Raises:
            ProtocolError: somebody else wrote there.
        """
        try:
            return self.source.receive_nowait() if receive is None else receive()
        except BlockingIOError:
            return []
        except (EOFError, OSError):
            self.stop_reading()
        return []

    def read_all(self, serve: Callable[[], None]) -> None:
        """Serve the process until all is read that it holds at this moment; what comes later may go on for ever."""
        source = self.source
        goal = source.received + source.unread_bytes(FIONREAD)
        while self.reading:
            before = source.received
            serve()
            if source.received >= goal or source.received == before:
                break

    @property
    def reading(self) -> bool:
        """Whether more may come."""
        return self._channel_watch is not None and self._channel_watch.active

    def resume(self) -> None:
        """Let the process go on if somebody has stopped it: it is to end, and a stopped one does nothing for that."""
        if self.handle is not None:
            with suppress(OSError):
                self.handle.send_signal(signal.SIGCONT)

    def stop_reading(self) -> None:
        """Watch the channel no more."""
        self._poller.forget(self._channel_watch)

    def stop_watching_exit(self) -> None:
        """Watch the process no more: a pidfd stays readable for good."""
        self._poller.forget(self._exit_watch)

    def close(self) -> None:
        """Forget and close everything. In the pool thread, under the lock."""
        self._poller.forget(self._channel_watch)
        self._poller.forget(self._exit_watch)
        self.channel.close()
        if self.handle is not None:
            self.handle.close()

    def close_in_forked_child(self) -> None:
        """Close the copies of a forked process; nothing is unregistered, epoll is the parent's too."""
        self.channel.close()
        if self.handle is not None:
            self.handle.close_in_forked_child()


class WorkerLink(Link):
    """One worker, from the request for it until it is removed."""

    _served_by_leader = True

    def __init__(self, slot: int, generation: int, end: Socket, pipe: int, tokens_fd: int, poller: Poller) -> None:
        self.cookie: int = new_cookie()  # see `framing.cookie_bytes`
        cookie = framing.cookie_bytes(self.cookie)
        super().__init__(Channel(end, frame_rules.FROM_WORKER, receive_cookie=cookie), poller)
        self.source = self.answers = Answers(pipe, self.channel, cookie)
        self._pipe_watch: Watch | None = None
        self.slot = slot
        self.generation = generation
        self.name: tuple[int, int, int | None] = (slot, generation, None)
        self.progress: Progress = Progress(tokens_fd)
        self.ready_early = False  # READY came before the template's SPAWNED, on its other channel
        self.account: SegmentAccount = SegmentAccount()
        self.rejected = False  # it wrote what its loop does not write, and nothing that follows is read
        self.status: ExitStatus | None = None  # as the template reported it
        self.ended_at: float | None = None  # when its pidfd became readable
        self.report_within = REPORT_GRACE
        self.usage: tuple[int, float] | None = None  # peak RSS and CPU time, as the template reported them
        self._largest_memory = 0  # that was measured
        self.log_levels: Levels | None = None  # which it was told; None: those that its template was told
        self._signal: int | None = None  # asked for before there was a handle
        self._black_box: int | None = None
        self._stderr: Stderr | None = None
        self._stderr_watch: Watch | None = None

    def watch_pipe(self, callback: Callable[[int], None]) -> None:
        """Have the pipe of the worker's answers served by the pool thread or the leader."""
        self._pipe_watch = self._poller.watch(self.answers.fileno(), callback, inner=True)

    def stop_reading(self) -> None:
        """Watch neither the channel nor the pipe any more."""
        super().stop_reading()
        self._poller.forget(self._pipe_watch)

    @property
    def overdue_at(self) -> float:
        """When to stop waiting for the template's report of how the worker ended, as time.monotonic() tells it."""
        assert self.ended_at is not None
        return self.ended_at + self.report_within

    def watch_exit(self, handle: ProcessHandle, callback: Callable[[int], None]) -> None:
        """Take the handle; a signal that was asked for meanwhile is sent now."""
        super().watch_exit(handle, callback)
        self.name = self.slot, self.generation, handle.pid
        if self._signal is not None:
            self.signal(self._signal)

    def leave(self) -> None:
        """Ask the worker to exit. If it is dying already, its pidfd will tell."""
        with suppress(OSError):
            self.post(framing.encode(framing.EXIT))
            self.resume()

    def signal(self, number: int) -> None:
        """Signal the worker and whatever else is in its process group; now, or as soon as it can be named."""
        self._signal = number
        if self.handle is None:
            return
        try:
            self.handle.send_signal(number, group=True)
        except ProcessLookupError:
            return  # it has ended
        except OSError:  # before Linux 6.9 a pidfd cannot name a group; the template kills the rest of it
            with suppress(OSError):
                self.handle.send_signal(number)
        if number == signal.SIGTERM:
            self.resume()

    def request_stack(self) -> None:
        """Have the worker write its Python stack into its black box."""
        with suppress(OSError):
            if self.handle is not None:
                self.handle.send_signal(black_box.STACK_SIGNAL)

    # ---- what is known of it -------------------------------------------------------------------------------

    def set_black_box(self, fd: int) -> None:
        """Own the descriptor of the worker's black box."""
        self._black_box = fd
        self.progress.use_black_box(fd)

    @property
    def black_box(self) -> int | None:
        """The descriptor of the worker's black box, if there is one."""
        return self._black_box

    def set_stderr(self, fd: int) -> None:
        """Own the read end of the worker's standard error, and have it served by the pool thread."""
        self._stderr = Stderr(fd)
        self._stderr_watch = self._poller.watch(fd, self._read_stderr)

    def _read_stderr(self, _mask: int) -> None:
        if self._stderr is not None and not self._stderr.read():
            self._poller.forget(self._stderr_watch)

    def last_heartbeat(self) -> float | None:
        """Return when the worker gave its last heartbeat, as time.monotonic() tells it; None: never."""
        return None if self._black_box is None else black_box.last_heartbeat(self._black_box)

    def call_started(self, task: int, before: float) -> float | None:
        """Return when the last call of the worker's chunk began, as time.monotonic() tells it; None: not known.

        If that was not after `before`, the worker is told to begin no further call of this task's. Another may have
        begun meanwhile, so it is looked once more.
        """
        box = self._black_box
        if box is None:
            return None
        at = published.call_started(box)
        if at is None or at <= before:
            published.halt(box, task)
            at = published.call_started(box)
        return at

    def allow_calls(self, most: int) -> None:
        """Have the worker make so many calls of its next chunk at most."""
        if self._black_box is not None:
            published.allow(self._black_box, most)

    def calls_begun(self, task: int) -> int | None:
        """Return how many calls of this task's chunk have begun; None: it is not known."""
        return None if self._black_box is None else published.calls_begun(self._black_box, task)

    def published(self) -> Published | None:
        """Return what the worker has published of its chunk of calls, if it has one."""
        return None if self._black_box is None else published.read(self._black_box)

    def usage_now(self) -> tuple[int | None, float | None]:
        """Return the resident memory in bytes and the processor time in seconds, if the worker is alive."""
        return self._if_alive(lambda pid: (process_usage.resident(pid), process_usage.processor_time(pid))) or (
            None,
            None,
        )

    def memory(self) -> int:
        """Return the resident memory in bytes, without segments, which belong to the pool; 0: it is not known."""
        memory = self._if_alive(lambda pid: process_usage.resident(pid, self.account.mapped)) or 0
        self._largest_memory = max(self._largest_memory, memory)
        return memory

    def _if_alive(self, read: Callable[[int], T]) -> T | None:
        """Return what is read by the worker's pid. It counts only if the worker is still alive afterwards."""
        handle = self.handle
        if handle is None:
            return None
        found = read(handle.pid)
        with suppress(OSError):
            if handle.alive():
                return found
        return None

    def evidence(self) -> Evidence:
        """Return what the dead worker left behind.

        In the pool thread, before `close`, and without the lock, because it reads files.
        """
        lines: tuple[str, ...] = ()
        if self._stderr is not None:
            self._stderr.read()
            lines = self._stderr.last_lines()
        box = self._black_box
        stack, marks = (None, 0) if box is None else (black_box.read_stack(box), black_box.count_marks(box))
        peak, cpu_time = self.usage or (None, None)
        if peak is not None:  # the kernel's sums over processors are inexact, so its peak may lie below what was read
            peak = max(peak, self._largest_memory)
        return Evidence(peak, cpu_time, lines, stack and stacks.told(stack), marks, self.published())

    def close(self) -> None:
        """Forget and close everything. In the pool thread, under the lock."""
        self._poller.forget(self._pipe_watch)
        self._poller.forget(self._stderr_watch)
        super().close()
        self.account.close()
        self._close_own()

    def close_in_forked_child(self) -> None:
        """Close the copies of a forked process."""
        super().close_in_forked_child()
        self._close_own()

    def _close_own(self) -> None:
        self.answers.close()
        self.progress.close()
        box, self._black_box = self._black_box, None
        if box is not None:
            native.close(box)
        if self._stderr is not None:
            self._stderr.close()
