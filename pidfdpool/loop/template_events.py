"""What the host learns from the template: workers that were born, that have ended, and the template's own end.

In the pool thread.
"""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING

from pidfdpool.loop.links import ORPHAN_GRACE
from pidfdpool.loop.outcomes import load_error
from pidfdpool.loop.poller import WRITE
from pidfdpool.pidfd import ExitStatus
from pidfdpool.process import describe, native
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import Template
from pidfdpool.transport import framing

if TYPE_CHECKING:
    from pidfdpool.loop.decisions import Decisions
    from pidfdpool.loop.links import WorkerLink
    from pidfdpool.loop.template_link import TemplateLink
    from pidfdpool.loop.worker_events import WorkerEvents
    from pidfdpool.transport.framing import Frame


class TemplateEvents:
    """Serves the template of one pool."""

    def __init__(self, core: Decisions, workers: WorkerEvents) -> None:
        self._core = core
        self._workers = workers

    def watch(self, link: TemplateLink) -> None:
        """Begin to watch the channel of a new template; `watch_exit` has to follow. The caller has the lock."""
        link.watch_channel(self.on_channel)
        link.watch_requests(self._core.lock)

    def watch_exit(self, link: TemplateLink) -> None:
        """Begin to watch for the end of a template that has sent HELLO. The caller has the lock."""
        assert link.end.handle is not None
        link.watch_exit(link.end.handle, self.on_exit)
        if link.end.early_frames:
            self._core.poller.wake()

    def handle_early_frames(self) -> None:
        """Take what the template said before it was watched."""
        template = self._core.template
        if template is not None and template.end.early_frames:
            with self._core.poller.serving:
                frames, template.end.early_frames = template.end.early_frames, []
                self.handle_frames(template, frames)

    def on_channel(self, mask: int) -> None:
        """Serve the template's channel."""
        template = self._core.template
        if template is None:
            return
        if mask & WRITE:
            with self._core.lock:
                template.flush()
        if self._workers.reads_all:
            template.read_all(partial(self._serve, template))
        else:
            self._serve(template)

    def _serve(self, template: TemplateLink) -> None:
        """Read once, and do what was said."""
        self.handle_frames(template, template.read())

    def handle_frames(self, template: TemplateLink, frames: list[Frame]) -> None:
        """Take what the template said, in its order."""
        core = self._core
        for frame in frames:
            link = core.workers.get(frame.slot)
            mine = link if link is not None and link.generation == frame.generation else None
            if frame.kind in (framing.BLACK_BOX, framing.STDERR):
                self._on_evidence(template, frame, mine)
            elif frame.kind == framing.SPAWNED:
                self._on_spawned(template, frame, mine)
            elif frame.kind == framing.BOOTED:
                core.handle(ev.TemplateBooted())
            elif frame.kind == framing.SPAWN_FAILED:
                with core.lock:
                    self._drop(mine)
                error = OSError(frame.value, "the template could not fork")
                core.handle(ev.SpawnFailed(frame.slot, frame.generation, str(error)))
            elif frame.kind == framing.DIED and mine is not None:
                mine.status = ExitStatus.from_wait_status(frame.value)
                mine.usage = framing.USAGE.unpack(frame.buffers[0])
                self._workers.remove(mine, mine.status)
            elif frame.kind == framing.PRELOAD_FAILED:
                cause = core.resolver.cause = load_error(frame.buffers)
                self.lose(ev.TemplateUnusable(f"the preload failed: {describe.repr_of(cause)}"))

    def _on_evidence(self, template: TemplateLink, frame: Frame, link: WorkerLink | None) -> None:
        fd = template.channel.next_descriptor()
        if fd is None:
            return  # no descriptor number was left, so a report of the death lacks this evidence
        if link is None:
            native.close(fd)
        elif frame.kind == framing.BLACK_BOX:
            link.set_black_box(fd)
        else:
            with self._core.lock:
                link.set_stderr(fd)

    def _on_spawned(self, template: TemplateLink, frame: Frame, link: WorkerLink | None) -> None:
        fd = template.channel.next_descriptor()
        if fd is None or link is None:
            # Without its descriptor the worker cannot be watched; it leaves when its channel closes.
            if fd is not None:
                native.close(fd)
            with self._core.lock:
                self._drop(link)
            self._core.handle(ev.SpawnFailed(frame.slot, frame.generation, "no descriptor number left"))
            return
        handle = template.end.worker_handle(fd, frame.value, frame.slot, frame.generation)
        with self._core.lock:
            link.watch_exit(handle, lambda mask: self._workers.on_exit(link, mask))
        self._core.handle(ev.Spawned(frame.slot, frame.generation, frame.value))
        if link.ready_early:
            self._core.handle(ev.Ready(frame.slot, frame.generation))

    def _drop(self, link: WorkerLink | None) -> None:
        """Close the host's end of a worker that was never started. The caller has the lock."""
        if link is not None:
            self._core.workers.pop(link.slot, None)
            link.close()

    def on_exit(self, _mask: int) -> None:
        """Take note that the template has ended, after reading all that it wrote."""
        template = self._core.template
        assert template is not None
        while frames := template.read():
            self.handle_frames(template, frames)
        if self._core.template is not template:
            return  # one of the frames said so already
        asked = self._core.machine.template is Template.STOPPING
        # If the host is its subreaper, or pid 1, the template has become its child again: this reaps it.
        status = template.handle.exit_status() if template.handle is not None else None
        reason = f"the template (pid {template.end.pid}) ended: {status}"
        if self._core.recipe.fork and not asked:
            self.lose(ev.TemplateUnusable(f"{reason}. It was forked from the host, which forks only once."))
        else:
            self.lose(ev.TemplateLost(reason))

    def lose(self, event: ev.TemplateLost | ev.TemplateUnusable) -> None:
        """Let go of the template and of its workers. In the pool thread."""
        core = self._core
        with core.lock:
            template, core.dispatcher.template = core.template, None
            if template is not None:
                template.close()
            for link in list(core.workers.values()):
                link.report_within = ORPHAN_GRACE
                if link.handle is None:
                    self._drop(link)
                else:
                    link.signal(signal.SIGKILL)  # the kernel kills the worker; this reaches what it started
            resolutions = core.decide(event)
        core.outbox.run(resolutions)
