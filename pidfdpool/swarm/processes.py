"""The supervisor's links to the template and to nodes: what they say becomes inputs, and actions are carried out.

In the supervisor's thread. `Processes` decides nothing. It passes each input to `decide`, and each log record to
`take_log`. The supervisor sets both.
"""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING

from pidfdpool.loop.cgroup import MemoryEvents
from pidfdpool.loop.links import ORPHAN_GRACE
from pidfdpool.loop.outcomes import load_error
from pidfdpool.loop.poller import WRITE
from pidfdpool.loop.template_link import TemplateLink
from pidfdpool.pidfd import ExitStatus, PidfdError
from pidfdpool.process import describe, native
from pidfdpool.swarm import actions as do
from pidfdpool.swarm import inputs as ip
from pidfdpool.swarm.links import NodeLink
from pidfdpool.transport import framing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from pidfdpool.loop.poller import Poller
    from pidfdpool.template.connection import TemplateConnection
    from pidfdpool.transport.framing import Frame


class Processes:
    """The template and the nodes of one swarm, as the host sees them.

    Attributes:
        links: by number of the process.
        template: None: there is none.
        fork_way: whether it was forked from the host, so that there is no other one.
    """

    def __init__(self, poller: Poller, lock: Any, *, fork_way: bool) -> None:
        self.links: dict[int, NodeLink] = {}
        self.template: TemplateLink | None = None
        self.fork_way = fork_way
        self.is_stopping = False  # the template was told to end
        self.decide: Callable[[ip.Input], None]
        self.take_log: Callable[[NodeLink, Frame], None]
        self._poller = poller
        self._lock = lock
        self._unreported: list[NodeLink] = []  # ended, but the template has not reported how
        self._memory = MemoryEvents()
        self._handlers: dict[type[Any], Callable[[Any], ip.Input | None]] = {
            do.Fork: self._fork,
            do.Request: lambda action: self._with(action, NodeLink.ask_to_stop),
            do.Terminate: lambda action: self._with(action, lambda link: link.signal(signal.SIGTERM)),
            do.Kill: lambda action: self._with(action, lambda link: link.signal(signal.SIGKILL)),
            do.Quiet: lambda action: self._with(action, NodeLink.ask_to_be_quiet),
            do.DumpStack: lambda action: self._with(action, NodeLink.keep_stack),
            do.LookAtReport: self._look_at_report,
            do.MeasureMemory: self._measure_memory,
            do.StopTemplate: self._stop_template,
            do.KillTemplate: self._kill_template,
        }

    # ---- actions, under the lock ---------------------------------------------------------------------------

    def carry_out(self, action: do.Action) -> ip.Input | None:
        """Carry out an action; return what follows at once."""
        return self._handlers[type(action)](action)

    def _with(self, action: Any, do_it: Callable[[NodeLink], object]) -> None:
        link = self.links.get(action.number)
        if link is not None:  # otherwise it could not be asked for, and the machine is about to be told
            do_it(link)
            if link.handle is None and self.template is not None:
                self.template.resume()  # if somebody has stopped it, it would not fork what is to end

    def _fork(self, action: do.Fork) -> ip.Input | None:
        assert self.template is not None
        link = None
        try:
            link = NodeLink(action.node, action.number, self._poller)
            link.watch_channel(partial(self._on_channel, link))
            link.request(self.template, action.attempt)
        except OSError as error:
            if link is not None:
                link.close()
            return ip.ForkFailed(action.node, action.number, str(error))
        self.links[action.number] = link
        return None

    def _look_at_report(self, action: do.LookAtReport) -> ip.Input:
        link = self.links.get(action.number)
        return ip.LastReport(action.node, action.number, None if link is None else link.last_report())

    def _measure_memory(self, action: do.MeasureMemory) -> ip.Input:
        link = self.links.get(action.number)
        return ip.MemoryMeasured(action.node, action.number, 0 if link is None else link.memory())

    def _stop_template(self, _action: do.StopTemplate) -> None:
        self.is_stopping = True
        if self.template is not None:
            self.template.request(framing.encode(framing.STOP))
            self.template.resume()

    def _kill_template(self, _action: do.KillTemplate) -> None:
        if self.template is not None:
            self.template.kill()

    # ---- the template --------------------------------------------------------------------------------------

    def take_template(self, end: TemplateConnection) -> None:
        """Own a template, and watch its channel; `watch_template_exit` has to follow. The caller has the lock."""
        self.template = TemplateLink(end, self._poller)
        self.template.watch_channel(self._on_template)
        self.template.watch_requests(self._lock)

    def watch_template_exit(self) -> None:
        """Watch for the end of a template that has said HELLO. The caller has the lock."""
        assert self.template is not None
        assert self.template.end.handle is not None
        self.template.watch_exit(self.template.end.handle, self._on_template_exit)

    def handle_early_frames(self) -> None:
        """Take what the template said together with HELLO."""
        template = self.template
        if template is not None and template.end.early_frames:
            frames, template.end.early_frames = template.end.early_frames, []
            self._handle_frames(template, frames)

    def _on_template(self, mask: int) -> None:
        template = self.template
        if template is None:
            return
        if mask & WRITE:
            with self._lock:
                template.flush()
        self._handle_frames(template, template.read())

    def _handle_frames(self, template: TemplateLink, frames: Sequence[Frame]) -> None:
        for frame in frames:
            link = self.links.get(frame.generation)
            if frame.kind in (framing.BLACK_BOX, framing.STDERR):
                self._on_evidence(template, frame, link)
            elif frame.kind == framing.SPAWNED:
                self._on_spawned(template, frame, link)
            elif frame.kind == framing.BOOTED:
                self.decide(ip.TemplateBooted())
            elif frame.kind == framing.SPAWN_FAILED:
                self._drop(link)
                reason = f"the template could not fork: {os.strerror(frame.value)}"
                self.decide(ip.ForkFailed(frame.slot, frame.generation, reason))
            elif frame.kind == framing.DIED and link is not None and link.handle is None:
                self._drop(link)
                self.decide(ip.ForkFailed(link.node, link.number, "no descriptor number left for its pidfd"))
            elif frame.kind == framing.DIED and link is not None:
                link.status = ExitStatus.from_wait_status(frame.value)
                link.usage = framing.USAGE.unpack(frame.buffers[0])
                self._remove(link, link.status)
            elif frame.kind == framing.PRELOAD_FAILED:
                cause = load_error(frame.buffers)
                self.lose(ip.TemplateUnusable(f"the preload failed: {describe.error_text(cause)}"))

    def _on_evidence(self, template: TemplateLink, frame: Frame, link: NodeLink | None) -> None:
        fd = template.channel.next_descriptor()
        if fd is None:
            return  # no descriptor number was left: without its black box a node looks silent
        if link is None:
            native.close(fd)
            return
        with self._lock:
            if frame.kind == framing.BLACK_BOX:
                link.set_black_box(fd)
            else:
                link.set_stderr(fd)

    def _on_spawned(self, template: TemplateLink, frame: Frame, link: NodeLink | None) -> None:
        fd = template.channel.next_descriptor()
        if fd is None or link is None:
            # Nobody here can watch this process. The template kills it, and tells when it is dead: not before that
            # another one may be started in its place.
            if fd is not None:
                native.close(fd)
            with self._lock:
                template.request(framing.encode(framing.SIGNAL, frame.slot, frame.generation, signal.SIGKILL))
            return
        handle = template.end.worker_handle(fd, frame.value, frame.slot, frame.generation)
        with self._lock:
            link.watch_exit(handle, partial(self._on_exit, link))
        self.decide(ip.Forked(frame.slot, frame.generation, frame.value))
        early, link.early = link.early, []
        for event in early:
            self.decide(event)

    def _on_template_exit(self, _mask: int) -> None:
        template = self.template
        assert template is not None
        while frames := template.read():
            self._handle_frames(template, frames)
        if self.template is not template:
            return  # one of the frames said so already
        # If the host is its subreaper, or pid 1, the template has become its child again: this reaps it.
        status = template.handle.exit_status() if template.handle is not None else None
        reason = f"the template (pid {template.end.pid}) ended: {status}"
        if self.fork_way and not self.is_stopping:
            self.lose(ip.TemplateUnusable(f"{reason}. It was forked from the host, which forks only once"))
        else:
            self.lose(ip.TemplateLost(reason))

    def lose(self, event: ip.TemplateLost | ip.TemplateUnusable) -> None:
        """Let go of the template. Its nodes are dying."""
        with self._lock:
            template, self.template = self.template, None
            if template is not None:
                template.close()
            for link in list(self.links.values()):
                link.report_within = ORPHAN_GRACE
                if link.handle is None:
                    self._drop(link)
            self.decide(event)

    def _drop(self, link: NodeLink | None) -> None:
        """Close the host's end of a process that was never started."""
        if link is not None:
            with self._lock:
                self.links.pop(link.number, None)
                link.close()

    # ---- nodes ---------------------------------------------------------------------------------------------

    def _on_channel(self, link: NodeLink, mask: int) -> None:
        if mask & WRITE:
            with self._lock:
                link.flush()
        self._read(link)

    def _read(self, link: NodeLink) -> bool:
        """Take what a node says; return whether it said anything."""
        try:
            frames = link.read()
            fault = link.source.error
        except framing.ProtocolError as error:
            frames, fault = [], error
        for frame in frames:
            if frame.kind == framing.LOG:  # type: ignore[union-attr]
                self.take_log(link, frame)  # type: ignore[arg-type]
            else:
                self._hear(link, _input_of(link, frame))  # type: ignore[arg-type]
        if fault is not None and link.reading:
            link.stop_reading()
            text = f"something wrote {fault} into its channel"
            self._hear(link, ip.ReportedUnhealthy(link.node, link.number, text))
        return bool(frames)

    def _hear(self, link: NodeLink, event: ip.OfProcess) -> None:
        if link.handle is None:
            link.early.append(event)
        else:
            self.decide(event)

    def _on_exit(self, link: NodeLink, _mask: int) -> None:
        """Note that a node's pidfd is readable: it has ended, and has said all that it will ever say."""
        with self._lock:
            link.stop_watching_exit()
        link.ended_at = time.monotonic()
        if link.status is not None:
            self._remove(link, link.status)
        else:
            self._unreported.append(link)

    @property
    def overdue_at(self) -> float | None:
        """When to wait no longer for the template's report of how some node has ended; None: none has."""
        return min((link.ended_at + link.report_within for link in self._unreported if link.ended_at), default=None)

    def remove_overdue(self, now: float) -> None:
        """Wait no longer for the template's reports where they are overdue."""
        for link in list(self._unreported):
            assert link.ended_at is not None
            if now >= link.ended_at + link.report_within:
                link.signal(signal.SIGKILL)  # the template may not have killed what the node had started
                status = link.handle.exit_status() if link.handle is not None else None
                self._remove(link, status or ExitStatus.UNKNOWN)

    def _remove(self, link: NodeLink, status: ExitStatus) -> None:
        while link.reading and self._read(link):
            pass
        if link in self._unreported:
            self._unreported.remove(link)
        peak, cpu_time = link.usage or (None, None)
        risen = self._memory.risen()
        oom_kills = risen.get("oom_kill", 0) if self._memory.readable else None
        record = time.time(), peak, cpu_time, link.stack(), link.last_lines(), oom_kills
        event = ip.Died(link.node, link.number, status, *record)
        with self._lock:
            self.links.pop(link.number, None)
            link.close()
        self.decide(event)

    # ---- the end -------------------------------------------------------------------------------------------

    def signal(self, number: int, value: int | None, node: int | None) -> int:
        """Send a signal to the processes of a node, or of all (None); return to how many. The caller has the lock.

        Raises:
            PidfdError: the kernel has refused one. It was sent to all others.
        """
        sent = 0
        refusal: PidfdError | None = None
        for link in self.links.values():
            if link.handle is not None and node in (None, link.node):
                try:
                    link.handle.send_signal(number, value)
                    sent += 1
                except ProcessLookupError:
                    pass
                except PidfdError as error:
                    refusal = refusal or error
        if refusal is not None:
            raise refusal
        return sent

    def close(self) -> None:
        """Close everything. The template sees its channel close, and kills what is left. The caller has the lock."""
        for link in self.links.values():
            link.close()
        self.links.clear()
        if self.template is not None:
            self.template.close()
            self.template = None

    def close_in_forked_child(self) -> None:
        """Close the copies of a process that was forked from the host."""
        for link in list(self.links.values()):
            link.close_in_forked_child()
        if self.template is not None:
            self.template.close_in_forked_child()


def _input_of(link: NodeLink, frame: Frame) -> ip.OfProcess:
    """Return what a frame of a node's says."""
    who = link.node, link.number
    if frame.kind == framing.READY:
        return ip.Begun(*who)
    if frame.kind == framing.HEALTHY:
        return ip.ReportedHealthy(*who)
    text = bytes(frame.buffers[0]).decode("utf-8", "replace")
    if frame.kind == framing.UNHEALTHY:
        return ip.ReportedUnhealthy(*who, text)
    return ip.Ending(*who, text, bool(frame.value))
