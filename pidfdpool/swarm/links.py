"""The host's end of one node's process: its channel, its pidfd, its two counters, its black box.

The supervisor's thread makes and closes it, under the swarm's lock. Other threads use it under that lock.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from pidfdpool.loop import process_usage, stacks
from pidfdpool.loop.links import REPORT_GRACE, Link
from pidfdpool.loop.worker_stderr import Stderr
from pidfdpool.process import counters, native
from pidfdpool.swarm.stack_requests import StackRequests
from pidfdpool.transport import black_box, frame_rules, framing
from pidfdpool.transport import channel as channels
from pidfdpool.transport.channel import Channel, new_cookie

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidfdpool.loop.poller import Poller, Watch
    from pidfdpool.loop.template_link import TemplateLink
    from pidfdpool.pidfd import ExitStatus, ProcessHandle
    from pidfdpool.swarm.inputs import OfProcess

MOST_OF_A_STACK = 1 << 16  # bytes


class NodeLink(Link):
    """One process of a node, from the request for it until it is removed.

    Attributes:
        node: the number of the node.
        number: that of the process.
        early: what it has said before the template's news of its fork came.
        status: how it ended, as the template has reported; None: it has not yet.
        usage: peak resident memory and processor time, as the template has reported.
        ended_at: when its pidfd became readable, as time.monotonic() tells it.
        report_within: seconds that the template has from then on to report how it ended.
    """

    def __init__(self, node: int, number: int, poller: Poller) -> None:
        """Make the descriptors.

        Raises:
            OSError: no descriptor is left; nothing stays open.
        """
        self.cookie = new_cookie()
        self._stopping = self._quiet = -1
        ours, theirs = channels.pair()
        try:
            self._stopping, self._quiet = counters.make(), counters.make()
            channels.hand_over(ours, self._quiet)
        except OSError:
            ours.close()
            theirs.close()
            self._close_own()
            raise
        self._theirs = theirs
        super().__init__(
            Channel(ours, frame_rules.FROM_NODE, receive_cookie=framing.cookie_bytes(self.cookie)), poller
        )
        self.node = node
        self.number = number
        self.early: list[OfProcess] = []
        self.status: ExitStatus | None = None
        self.usage: tuple[int, float] | None = None
        self.ended_at: float | None = None
        self.report_within = REPORT_GRACE
        self._box: int | None = None
        self._stderr: Stderr | None = None
        self._stderr_watch: Watch | None = None
        self._signal: int | None = None  # asked for before there was a handle
        self._stack_requests = StackRequests()
        self._stack_from: int | None = None  # where the stack begins that the machine has asked for

    def request(self, template: TemplateLink, attempt: int) -> None:
        """Ask the template for the process.

        Raises:
            OSError: no descriptor is left.
        """
        self.post(framing.encode(framing.ATTEMPT, value=attempt))
        template.request(framing.encode(framing.TOKENS, self.node, self.number), native.duplicate(self._stopping))
        request = framing.encode(framing.SPAWN, self.node, self.number, self.cookie)
        template.request(request, self._theirs.detach())

    # ---- what it is told -----------------------------------------------------------------------------------

    def watch_exit(self, handle: ProcessHandle, callback: Callable[[int], None]) -> None:
        """Take the handle; a signal that was asked for meanwhile is sent now."""
        super().watch_exit(handle, callback)
        if self._signal is not None:
            self.signal(self._signal)

    def ask_to_stop(self) -> None:
        """Set `node.stopping`, also in a process that is not there yet."""
        counters.add(self._stopping)
        self.resume()

    def ask_to_be_quiet(self) -> None:
        """Set `node.quiet`."""
        counters.add(self._quiet)

    def signal(self, number: int) -> None:
        """Send SIGTERM to the process, or SIGKILL to all of its group; now, or as soon as it is there."""
        if self.handle is None:
            self._signal = number
            return
        try:
            self.handle.send_signal(number, group=number == signal.SIGKILL)
        except ProcessLookupError:
            return
        except OSError:  # before Linux 6.9 a pidfd cannot name a group; the template kills the rest of it
            with suppress(OSError):
                self.handle.send_signal(number)
        self.resume()

    def request_stack(self) -> int | None:
        """Have it write its Python stack; return where that will begin in its black box. None: it cannot.

        A process that is writing one is not asked again, and nor is one that would be ended by the signal, because
        it has executed another program.
        """
        with suppress(OSError):
            if self.handle is None or self._box is None:
                return None
            masks = process_usage.signal_masks(self.handle.pid)
            if masks is not None and not masks.survives(black_box.STACK_SIGNAL):
                return None
            now = time.monotonic()
            is_pending = masks is not None and masks.awaits(black_box.STACK_SIGNAL)
            start = self._stack_requests.begun(now, is_pending=is_pending)
            if start is None:
                start = max(os.fstat(self._box).st_size, black_box.STACKS_OFFSET)
                self.handle.send_signal(black_box.STACK_SIGNAL)
                self._stack_requests.begin(now, start)
            return start
        return None

    def keep_stack(self) -> None:
        """Have it write its Python stack, for the record of its death."""
        self._stack_from = self.request_stack()

    # ---- what is known of it -------------------------------------------------------------------------------

    def set_black_box(self, fd: int) -> None:
        """Own the descriptor of its black box."""
        self._box = fd

    def set_stderr(self, fd: int) -> None:
        """Own the read end of its standard error, and have it served by the supervisor's thread."""
        self._stderr = Stderr(fd)
        self._stderr_watch = self._poller.watch(fd, self._read_stderr)

    def _read_stderr(self, _mask: int) -> None:
        if self._stderr is not None and not self._stderr.read():
            self._poller.forget(self._stderr_watch)

    def last_lines(self) -> tuple[str, ...]:
        """Return the last lines that it wrote to standard error, if that is captured. For the record of its death."""
        if self._stderr is None:
            return ()
        self._stderr.read()
        return self._stderr.last_lines()

    def last_report(self) -> float | None:
        """Return when its last report was, as time.monotonic() tells it; None: there was none."""
        return None if self._box is None else black_box.last_heartbeat(self._box)

    def memory(self) -> int:
        """Return its resident memory in bytes; 0: it is not known."""
        if self.handle is None:
            return 0
        found = process_usage.resident(self.handle.pid)
        with suppress(OSError):
            if found is not None and self.handle.alive():  # otherwise the number may be another's by now
                return found
        return 0

    def stack_since(self, start: int) -> str:
        """Return the stacks that were written from that place on."""
        with suppress(OSError):
            if self._box is not None:
                return os.pread(self._box, MOST_OF_A_STACK, start).decode("utf-8", "replace")
        return ""

    def stack(self) -> str | None:
        """Return the stack for the record of its death, if one was asked for."""
        text = "" if self._stack_from is None else self.stack_since(self._stack_from)
        return stacks.told(text) or text if text else None

    def close(self) -> None:
        """Forget and close everything. In the supervisor's thread, under the lock."""
        self._poller.forget(self._stderr_watch)
        super().close()
        self._close_own()

    def close_in_forked_child(self) -> None:
        """Close the copies of a forked process."""
        super().close_in_forked_child()
        self._close_own()

    def _close_own(self) -> None:
        if hasattr(self, "_theirs"):
            self._theirs.close()
            box, self._box = self._box, None
            if box is not None:
                native.close(box)
            if self._stderr is not None:
                self._stderr.close()
        for fd in (self._stopping, self._quiet):
            if fd >= 0:
                native.close(fd)
        self._stopping = self._quiet = -1
