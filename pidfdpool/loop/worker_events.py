"""What the host learns from the pipes, channels and pidfds of workers, up to the removal of a dead one.

In the pool thread; pipes and channels are also served by the leader.
"""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from pidfdpool.loop import responses
from pidfdpool.loop.poller import WRITE
from pidfdpool.pidfd import ExitStatus
from pidfdpool.scheduler import events as ev
from pidfdpool.transport import framing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pidfdpool.loop.decisions import Decisions
    from pidfdpool.loop.links import WorkerLink
    from pidfdpool.transport.framing import Frame, Lean


class WorkerEvents:
    """Serves the workers of one pool."""

    def __init__(self, core: Decisions) -> None:
        self._core = core
        self._outbox = core.outbox
        self.unreported: list[WorkerLink] = []  # ended, but the template has not reported how
        self.reads_all = False  # each channel that is ready, not once but to its end

    def on_answers(self, link: WorkerLink, _mask: int) -> None:
        """Serve the pipe of a worker's answers. In the pool thread or the leader."""
        self._serve(link, link.answers.receive_when_pipe_is_ready)

    def on_channel(self, link: WorkerLink, mask: int) -> None:
        """Serve a worker's channel. In the pool thread or the leader."""
        if mask & WRITE:
            with self._core.lock:
                link.flush()
            if mask == WRITE:
                return
        self._serve(link, link.answers.receive_when_channel_is_ready)

    def _serve(self, link: WorkerLink, receive: Callable[[], list[Frame | Lean]]) -> None:
        if not self._outbox.in_leader:
            self._outbox.run_left()  # what the leader has left comes before what is read now
        if self.reads_all:
            link.read_all(partial(self._serve_worker, link, receive))
        else:
            self._serve_worker(link, receive)

    def _serve_worker(self, link: WorkerLink, receive: Callable[[], list[Frame | Lean]] | None = None) -> None:
        """Read once, and take what was said."""
        frames: Sequence[Frame | Lean] = ()
        try:
            frames = link.read(receive)
            fault = link.source.error
        except framing.ProtocolError as error:
            fault = error
        responses.handle_frames(self._core, link, frames)
        if fault is not None:
            responses.reject_worker(self._core, link, fault)
        elif not frames and not link.reading and link.ended_at is None:
            self._core.handle(ev.ChannelClosed(link.slot, link.generation))

    def on_exit(self, link: WorkerLink, _mask: int) -> None:
        """Note that a worker's pidfd is readable: it has ended, and has said all that it will ever say."""
        assert link.handle is not None
        with self._core.lock:
            link.stop_watching_exit()
        link.ended_at = time.monotonic()
        if link.status is None and self._core.template is None:
            link.status = _known(link.handle.exit_status())
        if link.status is not None:
            self.remove(link, link.status)
        else:
            # The template is about to report how, and what the worker had used. What needs no report is done now.
            self.unreported.append(link)
            self._drain(link)
            with self._core.lock:
                self._core.resolver.deaths.read_memory_events()

    def remove_overdue(self, now: float) -> None:
        """Wait no longer for the template's reports where they are overdue."""
        for link in list(self.unreported):
            if now >= link.overdue_at:
                # The template, stopped or gone, may not have killed what the worker had started.
                link.signal(signal.SIGKILL)
                status = link.handle.exit_status() if link.handle is not None else None
                self.remove(link, status or ExitStatus.UNKNOWN)

    def _drain(self, link: WorkerLink) -> None:
        """Read all that a dead worker wrote: it counts.

        A task may have ended the channel before. Then nobody has watched the pipe since, and it has gone on there.
        """
        while not link.rejected:
            before = link.source.received
            self._serve_worker(link)
            if link.source.received == before:
                break  # some other process holds the worker's end; nothing more will come of it

    def remove(self, link: WorkerLink, status: ExitStatus) -> None:
        """Read the last of a dead worker, resolve the future of its task, forget the worker, and ask for another."""
        self._drain(link)
        core = self._core
        with suppress(ValueError):
            self.unreported.remove(link)
        evidence = link.evidence()
        with core.lock:
            if core.workers.get(link.slot) is link:
                del core.workers[link.slot]
            unbegun = link.progress.unbegun(core.machine.held(link.slot, link.generation))
            link.account.close()
            resolutions = core.decide_death(ev.Died(link.slot, link.generation, status, unbegun), evidence)
        try:
            self._outbox.run(resolutions)
        finally:
            with core.lock:
                link.close()
        core.spawn_deferred()


def _known(status: ExitStatus | None) -> ExitStatus | None:
    return None if status is None or status.unknown else status
