"""Carries out what the machine has decided about processes: it writes to workers and to the template.

Under the pool's lock, in whichever thread has decided. Nothing here waits.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from pidfdpool.loop import answers
from pidfdpool.loop.links import WorkerLink
from pidfdpool.process import native, safe_logging
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.transport import channel as channels
from pidfdpool.transport import framing, tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pidfdpool.loop.log_relay import LogRelay
    from pidfdpool.loop.poller import Poller
    from pidfdpool.loop.resolutions import Resolution, Resolver
    from pidfdpool.loop.segment_leases import SegmentLeases
    from pidfdpool.loop.task import Task
    from pidfdpool.loop.template_link import TemplateLink
    from pidfdpool.scheduler.machine import Machine
    from pidfdpool.transport.framing import Buffer

_log = logging.getLogger("pidfdpool.tasks")

AT_ONCE = 256  # tasks in one write: a gathering write takes 1024 pieces (IOV_MAX), and a task has two or three
SMALL = 1 << 16  # bytes that are sooner copied together than gathered


class Dispatcher:
    """The processes of a pool. The caller of every method holds the pool's lock."""

    # Called when a worker's channel, or the pipe of its answers, is ready, with its link and the mask of events; set
    # before anything is started.
    on_channel: Callable[[WorkerLink, int], None]
    on_answers: Callable[[WorkerLink, int], None]

    def __init__(
        self,
        machine: Machine,
        resolver: Resolver,
        poller: Poller,
        leases: SegmentLeases,
        workers: dict[int, WorkerLink],
    ) -> None:
        self._machine = machine
        self._resolver = resolver
        self._tasks = resolver.tasks
        self._poller = poller
        self._leases = leases
        self.workers = workers  # by slot
        self.template: TemplateLink | None = None
        self.logs: LogRelay | None = None  # None: workers need not know the levels of the host's loggers
        self.defers_spawns = False
        self.deferred_spawns: list[do.Spawn] = []
        # Each returns what comes of it: an event that follows, or what is to run without the lock.
        self.handlers: dict[type[Any], Callable[[Any], ev.Event | Resolution | None]] = {
            do.Send: self.send,
            do.Prefetch: self._prefetch,
            do.TakeBack: self._take_back,
            do.MarkBegun: self._mark_begun,
            do.Spawn: self._spawn,
            do.Stop: self._stop,
            do.Signal: self._signal,
            do.DumpStack: self._dump_stack,
            do.CheckHeartbeat: self._check_heartbeat,
            do.CheckCall: self._check_call,
            do.ReadPublished: self._read_published,
            do.CheckMemory: self._check_memory,
            do.KillTemplate: self._kill_template,
            do.StopTemplate: self._stop_template,
        }

    def spawn_deferred(self) -> list[ev.Event]:
        """Ask for the workers that were put off; return what has failed at once."""
        spawns, self.deferred_spawns = self.deferred_spawns, []
        return [failure for spawn in spawns if (failure := self._spawn(spawn)) is not None]

    def send(self, action: do.Send) -> ev.Event | None:
        """Send an attempt of a task to a worker; return what follows if it did not get there."""
        task = self._tasks[action.task]
        link = self.workers[action.slot]
        if not task.begun:
            if not task.future._begin():
                del self._tasks[action.task]
                self._resolver.cancelled += 1
                if self._resolver.observation is not None:
                    self._resolver.observation.note_end(task, None, cancelled=True)
                return ev.SendSkipped(action.slot, action.generation, action.task)
            task.begun = True
        task.attempt, task.worker = action.attempt, link.name
        if action.attempt > 1:
            link.progress.forget_begun()
        if action.allowed:
            link.allow_calls(action.allowed)
        task.future._note_attempt(link.name, action.attempt, time.time())
        try:
            link.progress.put_tokens(1)
            if self.logs is not None:
                self.logs.update(link)
            if self._is_plain(task):
                link.post(task.frame(action.attempt, action.deadline))
            else:
                self._leases.post(link, task, action.attempt, action.deadline)
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise  # no socket says so, but a signal handler may
            return ev.SendRefused(action.slot, action.generation, action.task)
        return None

    def _is_plain(self, task: Task) -> bool:
        """Return whether the task has nothing to do with segments."""
        return not task.heavy and not (self._leases.sizes and task.name in self._leases.sizes)

    def _prefetch(self, action: do.Prefetch) -> None:
        link = self.workers[action.slot]
        tasks = list(map(self._tasks.__getitem__, action.tasks))
        link.progress.put_tokens(len(tasks))
        with suppress(ConnectionError):  # it is dying: its tokens tell that none of these has begun
            if self.logs is not None:
                self.logs.update(link)
            for first in range(0, len(tasks), AT_ONCE):
                some = tasks[first : first + AT_ONCE]
                joined = None if self._leases.sizes else _joined_plain(some)
                if joined is not None:
                    link.post((joined,))
                else:
                    self._post_each(link, some)

    def _post_each(self, link: WorkerLink, tasks: Sequence[Task]) -> None:
        """Send tasks of all kinds, as many as possible in one write."""
        pieces: list[Buffer] = []
        for task in tasks:
            plain = self._is_plain(task)
            if pieces and not plain:
                link.post(_joined(pieces))
                pieces = []
            if plain:
                pieces += task.frame(1, None)
            else:
                self._leases.post(link, task, 1, None)
        if pieces:
            link.post(_joined(pieces))

    def _take_back(self, action: do.TakeBack) -> ev.Event:
        link = self.workers[action.slot]
        ahead = self._machine.slots[action.slot].ahead
        last = list(islice(reversed(ahead), action.count))[::-1]
        count = link.progress.take_back(last)
        if link.account.leased and count:
            for number in last[-count:]:
                self._leases.take_back(link, number)
        return ev.TakenBack(action.slot, action.generation, count)

    def _mark_begun(self, action: do.MarkBegun) -> None:
        task = self._tasks[action.task]
        task.begun, task.attempt, task.worker = True, 1, self.workers[action.slot].name
        task.future._begin()
        task.future._note_attempt(task.worker, 1, time.time())

    def _spawn(self, action: do.Spawn) -> ev.Event | None:
        if self.defers_spawns:
            self.deferred_spawns.append(action)
            return None
        assert self.template is not None
        try:
            ours, theirs = channels.pair()
        except OSError as error:
            return ev.SpawnFailed(action.slot, action.generation, f"socketpair: {error}")
        pipe = -1
        try:
            pipe = answers.attach(ours)
            our_tokens, its_tokens = tokens.pair()
        except OSError as error:
            ours.close()
            theirs.close()
            if pipe >= 0:
                native.close(pipe)
            return ev.SpawnFailed(action.slot, action.generation, f"{'eventfd' if pipe >= 0 else 'pipe'}: {error}")
        link = WorkerLink(action.slot, action.generation, ours, pipe, our_tokens, self._poller)
        self.workers[action.slot] = link
        link.watch_channel(partial(self.on_channel, link))
        link.watch_pipe(partial(self.on_answers, link))
        if self._resolver.observation is not None:
            self._resolver.observation.record_times(link)
        self.template.request(framing.encode(framing.TOKENS, action.slot, action.generation), its_tokens)
        request = framing.encode(framing.SPAWN, action.slot, action.generation, link.cookie)
        self.template.request(request, theirs.detach())
        return None

    # There may be no such worker: its start has failed, and the machine is about to be told.

    def _stop(self, action: do.Stop) -> None:
        if action.slot in self.workers:
            self.workers[action.slot].leave()

    def _signal(self, action: do.Signal) -> None:
        if action.slot in self.workers:
            self.workers[action.slot].signal(action.signal)

    def _dump_stack(self, action: do.DumpStack) -> None:
        if action.slot in self.workers:
            self.workers[action.slot].request_stack()

    def _check_heartbeat(self, action: do.CheckHeartbeat) -> ev.Event:
        link = self.workers[action.slot]
        at = link.last_heartbeat()
        if action.chunk is not None and _is_late(at, action.before):
            at = max(at or 0.0, link.call_started(action.chunk, action.before) or 0.0)
        return ev.LastHeartbeat(action.slot, action.generation, at, _is_late(at, action.before))

    def _check_call(self, action: do.CheckCall) -> ev.Event:
        at = self.workers[action.slot].call_started(action.chunk, action.before)
        return ev.CallStarted(action.slot, action.generation, at, _is_late(at, action.before))

    def _read_published(self, action: do.ReadPublished) -> None:
        chunk, published = self._tasks[action.task].chunk, self.workers[action.slot].published()
        if chunk is not None and published is not None and published.task == action.task:
            chunk.take(published)

    def _check_memory(self, action: do.CheckMemory) -> ev.Event:
        return ev.MemoryMeasured(action.slot, action.generation, self.workers[action.slot].memory())

    def _kill_template(self, _action: do.KillTemplate) -> Resolution:
        assert self.template is not None
        self.template.kill()
        message = "the template (pid %s) does not answer and is killed"
        return partial(safe_logging.log, _log, logging.WARNING, message, self.template.end.pid)

    def _stop_template(self, _action: do.StopTemplate) -> None:
        assert self.template is not None
        self.template.resume()
        self.template.request(framing.encode(framing.STOP))


def _joined_plain(tasks: Sequence[Task]) -> bytes | None:
    """Return the frames of the first attempts of tasks that are small; None: they are not.

    Nearly all that is sent are such tasks.
    """
    pack, kind = framing.OF_ONE.pack, framing.TASK
    pieces: list[Buffer] = []
    add = pieces.append
    for task in tasks:
        buffers = task.buffers
        if type(buffers) is not list or len(buffers) != 1:
            return None
        data = buffers[0]
        add(pack(kind, 1, task.flags, 1, task.number, len(data)))
        add(data)
    return b"".join(pieces) if sum(map(len, pieces)) <= SMALL else None


def _joined(pieces: list[Buffer]) -> list[Buffer]:
    return pieces if sum(map(len, pieces)) > SMALL else [b"".join(pieces)]


def _is_late(at: float | None, before: float) -> bool:
    """Return whether a sign of life was given too long ago, or never."""
    return at is None or at <= before
