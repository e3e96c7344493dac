"""Carries out what the machine has decided about processes: writes to workers and to the template.

Under the pool's lock, in whichever thread has decided. Nothing here waits.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from pidfdpool.loop.links import WorkerLink
from pidfdpool.loop.resolutions import Resolving
from pidfdpool.process import journal
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.transport import channel as channels
from pidfdpool.transport import framing, tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidfdpool.loop.death_reports import Witness
    from pidfdpool.loop.links import TemplateLink
    from pidfdpool.loop.outcomes import Task
    from pidfdpool.loop.poller import Poller
    from pidfdpool.loop.pool_thread import PoolThread
    from pidfdpool.loop.resolutions import Resolution
    from pidfdpool.loop.segment_leases import Lender
    from pidfdpool.loop.template_starter import Starter
    from pidfdpool.scheduler.machine import Machine
    from pidfdpool.template.recipe import Recipe
    from pidfdpool.transport.framing import Buffer

_log = logging.getLogger("pidfdpool.tasks")

AT_ONCE = 256  # tasks in one write: a gathering write takes 1024 pieces (IOV_MAX), and a task has two or three
SMALL = 1 << 16  # bytes that are sooner copied together than gathered


class Carrying(Resolving):
    """The processes of a pool. The caller of every method holds the pool's lock, unless it takes that itself."""

    lender: Lender
    machine: Machine
    poller: Poller
    recipe: Recipe
    starter: Starter
    closed: bool
    lock: Any
    _thread: PoolThread

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self.workers: dict[int, WorkerLink] = {}  # by slot
        self.template: TemplateLink | None = None
        self._puts_off_spawns = False
        self._spawns: list[do.Spawn] = []  # that were put off
        # Each returns what comes of it: an event that follows, or what is to be run without the lock.
        self._carry_out: dict[type[Any], Callable[[Any], ev.Event | Resolution | None]] = {
            do.Send: self._send,
            do.Prefetch: self._prefetch,
            do.TakeBack: self._take_back,
            do.Began: self._began,
            do.Spawn: self._spawn,
            do.Stop: self._stop,
            do.Signal: self._signal,
            do.AskStack: self._ask_stack,
            do.CheckHeartbeat: self._check_heartbeat,
            do.CheckMemory: self._check_memory,
            do.StartTemplate: self._start_template,
            do.KillTemplate: self._kill_template,
            do.StopTemplate: self._stop_template,
            do.Close: self._close,
        }

    def _send(self, action: do.Send) -> ev.Event | None:
        task = self.tasks[action.task]
        link = self.workers[action.slot]
        if not task.begun:
            if not task.future._begin():
                del self.tasks[action.task]
                self.cancelled += 1
                return ev.Declined(action.slot, action.generation, action.task)
            task.begun = True
        task.attempt = action.attempt
        if action.attempt > 1:
            link.progress.forget_begun()
        task.future._note_attempt(link.name, action.attempt, time.time())
        try:
            link.progress.put_tokens(1)
            if self._is_plain(task):
                link.post(task.frame(action.attempt, action.deadline))
            else:
                self.lender.post(link, task, action.attempt, action.deadline)
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise  # no socket says so, but a signal handler may
            return ev.SendRefused(action.slot, action.generation, action.task)
        return None

    def _is_plain(self, task: Task) -> bool:
        """Return whether the task has nothing to do with segments."""
        return not task.heavy and not (self.lender.sizes and task.name in self.lender.sizes)

    def _prefetch(self, action: do.Prefetch) -> None:
        link = self.workers[action.slot]
        pieces: list[Buffer] = []
        count = 0
        link.progress.put_tokens(len(action.tasks))
        with suppress(ConnectionError):  # it is dying: its tokens tell that none of these has begun
            for number in action.tasks:
                task = self.tasks[number]
                plain = self._is_plain(task)
                if pieces and (count == AT_ONCE or not plain):
                    link.post(_joined(pieces))
                    pieces, count = [], 0
                if plain:
                    pieces += task.frame(1, None)
                    count += 1
                else:
                    self.lender.post(link, task, 1, None)
            if pieces:
                link.post(_joined(pieces))

    def _take_back(self, action: do.TakeBack) -> ev.Event:
        link = self.workers[action.slot]
        ahead = self.machine.slots[action.slot].ahead
        last = list(islice(reversed(ahead), action.count))[::-1]
        count = link.progress.take_back(last)
        if link.account.lent and count:
            for number in last[-count:]:
                self.lender.take_back(link, number)
        return ev.TakenBack(action.slot, action.generation, count)

    def _began(self, action: do.Began) -> None:
        task = self.tasks[action.task]
        task.begun, task.attempt = True, 1
        task.future._begin()
        task.future._note_attempt(self.workers[action.slot].name, 1, time.time())

    def _spawn(self, action: do.Spawn) -> ev.Event | None:
        if self._puts_off_spawns:
            self._spawns.append(action)
            return None
        assert self.template is not None
        try:
            ours, theirs = channels.pair()
        except OSError as error:
            return ev.SpawnFailed(action.slot, action.generation, f"socketpair: {error}")
        try:
            our_tokens, its_tokens = tokens.pair()
        except OSError as error:
            ours.close()
            theirs.close()
            return ev.SpawnFailed(action.slot, action.generation, f"eventfd: {error}")
        link = WorkerLink(action.slot, action.generation, ours, our_tokens, self.poller)
        self.workers[action.slot] = link
        link.watch_channel(partial(self._thread.on_channel, link))
        self.template.tell(framing.encode(framing.TOKENS, action.slot, action.generation), its_tokens)
        self.template.tell(framing.encode(framing.SPAWN, action.slot, action.generation, link.seal), theirs.detach())
        return None

    # There may be no such worker: its start has failed, and the machine is about to be told.

    def _stop(self, action: do.Stop) -> None:
        if action.slot in self.workers:
            self.workers[action.slot].leave()

    def _signal(self, action: do.Signal) -> None:
        if action.slot in self.workers:
            self.workers[action.slot].signal(action.signal)

    def _ask_stack(self, action: do.AskStack) -> None:
        if action.slot in self.workers:
            self.workers[action.slot].ask_stack()

    def _check_heartbeat(self, action: do.CheckHeartbeat) -> ev.Event:
        return ev.LastBeat(action.slot, action.generation, self.workers[action.slot].last_beat())

    def _check_memory(self, action: do.CheckMemory) -> ev.Event:
        return ev.MemoryFound(action.slot, action.generation, self.workers[action.slot].memory())

    def _kill_template(self, _action: do.KillTemplate) -> Resolution:
        assert self.template is not None
        self.template.kill()
        message = "the template (pid %s) does not answer and is killed"
        return partial(journal.write, _log, logging.WARNING, message, self.template.end.pid)

    def resume_template(self) -> None:
        """Let the template go on if somebody has stopped it: the pool is to end, and may need it for that.

        Takes the lock.
        """
        with self.lock:
            if self.template is not None:
                self.template.resume()

    def want_script(self) -> None:
        """Have this pool's templates run the script again: the one that is there, before it forks the next worker.

        Takes the lock.
        """
        with self.lock:
            self.recipe.runs_script = True
            if self.template is not None:
                self.template.want_script()

    def _start_template(self, _action: do.StartTemplate) -> None:
        # Not here, where the lock is held: starting takes as long as an interpreter takes to start.
        self.starter.wanted = True
        if self._thread.started:
            self.poller.wake()

    def _stop_template(self, _action: do.StopTemplate) -> None:
        assert self.template is not None
        self.template.resume()
        self.template.tell(framing.encode(framing.STOP))

    def _close(self, _action: do.Close) -> None:
        self.closed = True
        self.poller.wake()


def _joined(pieces: list[Buffer]) -> list[Buffer]:
    return pieces if sum(map(len, pieces)) > SMALL else [b"".join(pieces)]
