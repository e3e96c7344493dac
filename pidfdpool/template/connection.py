"""The host's connection to one template: the channel, the handles of template and launcher, and the lifeline.

Made by `client` when a template starts, on the thread that starts it. From then on the loop owns it: the pool thread
reads from it and closes it, and the thread that holds the pool's lock writes to it.
"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

from pidfdpool.pidfd import ExitStatus, Pidfd, PidfdDenied, SentinelHandle
from pidfdpool.pidfd.sentinel import reap
from pidfdpool.process import hygiene, native
from pidfdpool.transport import channel as channels
from pidfdpool.transport import frame_rules, framing
from pidfdpool.transport.descriptor_requests import Inbox
from pidfdpool.worker.boot import PIDFD

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidfdpool.pidfd import ProcessHandle
    from pidfdpool.process.native import Socket

LAUNCHER_EXIT_TIMEOUT = 5.0  # seconds that a launcher has for its exit, which takes it a millisecond


class Launcher:
    """The process that was started to be a launcher.

    program: what it runs, for messages.
    start_timeout: seconds that it has to bring the template up.
    leads_group: whether it leads a process group of its own.
    """

    def __init__(self, program: str, start_timeout: float, *, leads_group: bool = False) -> None:
        self.program = program
        self.start_timeout = start_timeout
        self.leads_group = leads_group
        self.pid = 0  # until it is started


class _WorkerPidfd(Pidfd):
    """A worker's pidfd. Where the host may not signal the worker, the template does it.

    A host may give up its privileges by setuid(2) when its workers are there. From then on it may not signal them,
    and could end neither them nor their tasks. The template still has the privileges, so it is asked to.
    """

    signal_by_template: Callable[[int, bool], None]

    def send_signal(self, sig: int, value: int | None = None, *, group: bool = False) -> None:
        """Send a signal, or have the template send it to the whole group."""
        try:
            super().send_signal(sig, value, group=group)
        except PidfdDenied:
            self.signal_by_template(sig, group)


class TemplateConnection:
    """What the host holds of one template.

    lifeline: the write end of a pipe, held open by the host alone; see `process.lifeline`.
    """

    def __init__(self, end: Socket, handles: str, lifeline: int) -> None:
        # A preload may write into any descriptor, so the template's frames have a cookie; see `framing.cookie_bytes`.
        self.cookie: int = channels.new_cookie()
        cookie = framing.cookie_bytes(self.cookie)
        self.channel: channels.Channel = channels.Channel(
            end, frame_rules.FROM_TEMPLATE, descriptors=True, receive_cookie=cookie
        )
        self.handles = handles
        self.handle: ProcessHandle | None = None
        self.launcher: ProcessHandle | None = None  # until `reap_launcher`
        # Whose template has not said HELLO yet. The requests that it is sent until then wait in the channel.
        self.awaited: Launcher | None = None
        self.runs_script = False  # the template was told to run the script again
        self.early_frames: list[framing.Frame] = []  # they arrived with HELLO; the pool thread handles them
        self._lifeline: int | None = lifeline
        self.tracker_requests: Inbox = Inbox()  # see `worker.shared_tracker`

    @property
    def pid(self) -> int | None:
        """The template's number, for messages only."""
        return None if self.handle is None else self.handle.pid

    def close(self) -> None:
        """Close every descriptor of the host's that belongs to this template."""
        self.channel.close()
        self.tracker_requests.close()
        if self.handle is not None:
            self.handle.close()
        self.close_lifeline()

    def close_in_forked_child(self) -> None:
        """Close the copies of a process that was forked from the host."""
        self.channel.close()
        self.tracker_requests.close()
        for handle in (self.handle, self.launcher):
            if handle is not None:
                handle.close_in_forked_child()
        self.close_lifeline()

    def reap_launcher(self) -> None:
        """Wait for the exit of the launcher, which is under way, and reap it. Not interrupted by signal handlers."""
        launcher = self.launcher
        if launcher is None:
            return
        with hygiene.signals_blocked():
            deadline = time.monotonic() + LAUNCHER_EXIT_TIMEOUT
            poller = native.poll()
            poller.register(launcher.fileno(), select.POLLIN)
            poller.poll(LAUNCHER_EXIT_TIMEOUT * 1000)
            if isinstance(launcher, Pidfd):
                launcher.exit_status()
            else:
                reap_by_number(launcher.pid, deadline)  # its pipe closes shortly before it can be waited for
            launcher.close()
            self.launcher = None

    def close_lifeline(self) -> None:
        """Close the write end: the kernel wakes the template, if it is stopped, and kills its workers."""
        if self._lifeline is not None:
            native.close(self._lifeline)
            self._lifeline = None

    def worker_handle(self, fd: int, pid: int, slot: int, generation: int) -> ProcessHandle:
        """Return a handle that owns the descriptor which came with SPAWNED.

        Where the host cannot signal the worker, the template does it for the host.
        """

        def signal_by_template(number: int, _group: bool) -> None:  # the template always signals the whole group
            self.channel.send_nowait(framing.encode(framing.SIGNAL, slot, generation, number))

        if self.handles == PIDFD:
            handle = _WorkerPidfd.from_fd(fd, pid)
            handle.signal_by_template = signal_by_template
            return handle
        return SentinelHandle(fd, pid, signal_by_template)


def reap_by_number(pid: int, deadline: float) -> ExitStatus:
    """Reap a child that has no pidfd, by the deadline. While it is not reaped, its number belongs to it."""
    while time.monotonic() < deadline:
        try:
            status = reap(pid)
        except ChildProcessError:  # somebody else has reaped it
            break
        if status is not None:
            return status
        native.sleep(0.001)
    return ExitStatus.UNKNOWN
