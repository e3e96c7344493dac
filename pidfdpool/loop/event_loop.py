"""What the pool thread does: wait for workers, the template and deadlines, and turn what happens into events.

The loop ends when the machine says that nothing is left. If the pool's own code fails, no future may stay unresolved:
`teardown.fail_everything` fails all of them.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING

from pidfdpool.loop import teardown
from pidfdpool.process import safe_logging
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import Phase
from pidfdpool.typed import Protocol

if TYPE_CHECKING:
    from pidfdpool.loop.decisions import Decisions
    from pidfdpool.loop.template_events import TemplateEvents
    from pidfdpool.loop.template_starter import TemplateStarter
    from pidfdpool.loop.worker_events import WorkerEvents

_log = logging.getLogger("pidfdpool")


RETRY = 0.001  # seconds until a thread is done that submits what an executor has left


class Unsubmitted(Protocol):
    """The calls that an executor has accepted and has not submitted yet."""

    def finish(self, *, cancel: bool) -> None:
        """Submit them, or with `cancel` drop them."""

    def submit_without_waiting(self) -> bool:
        """Submit them; False: another thread is doing that."""


class EventLoop:
    """The turns of one pool's thread."""

    def __init__(
        self, core: Decisions, workers: WorkerEvents, template: TemplateEvents, starter: TemplateStarter
    ) -> None:
        self._core = core
        self._workers = workers
        self._template = template
        self._starter = starter
        self.owner_lost: bool = False  # nobody can submit any more; set without the lock, by the collector
        self.unsubmitted: Unsubmitted | None = None

    def run(self) -> None:
        """Take turns until nothing is left of the pool. In the pool thread."""
        core = self._core
        try:
            while not core.closed:
                self._turn(core)
        except BaseException as error:
            if not core.abandoned:
                # What is no Exception came from a signal handler, and has ended a call of the user's, where it is
                # on its way to whom it concerns: sys.exit() in a handler of SIGTERM is no reason to complain.
                level = logging.CRITICAL if issubclass(type(error), Exception) else logging.INFO
                safe_logging.log(_log, level, "the pool thread failed; the pool is broken", exc_info=error)
                teardown.fail_everything(core, error)
        finally:
            # A greenlet that was copied into a forked child has nothing to close there, nor has a child that was
            # forked in a callback and came back from it.
            if not core.abandoned:
                with core.lock:
                    core.closed = True
                core.leadership.end()
                core.watchdog.end()
                with core.lock:
                    core.outbox.left.extend(core.admission.refuse())
                    if core.resolver.observation is not None:
                        core.resolver.observation.gather()
                    teardown.close_everything(core)
                core.outbox.finish()
                core.catch_up()
                if (observation := core.resolver.observation) is not None:
                    observation.end()
                core.thread.note_end()

    def _turn(self, core: Decisions) -> None:
        if core.thread.failure is not None:
            raise core.thread.failure
        core.catch_up()
        self._starter.start_if_wanted()
        if self.owner_lost and (self.unsubmitted is None or self.unsubmitted.submit_without_waiting()):
            self.owner_lost, self.unsubmitted = False, None
            core.handle(ev.ShutdownRequested())
        self._template.handle_early_frames()
        observation = core.resolver.observation
        if observation is not None:
            observation.work(idle=not core.tasks)
        now = time.monotonic()
        with core.lock:
            deadline = core.machine.deadline()
            if self._workers.unreported:
                overdue = min(link.overdue_at for link in self._workers.unreported)
                deadline = overdue if deadline is None else min(deadline, overdue)
            if core.leases.arena.segments or core.leases.arena.to_unmap:
                deadline = core.leases.release_idle(now, deadline)
            if core.admission.waiting and core.machine.phase is not Phase.OPEN:
                deadline = now  # the next of those that wait for room are to be refused
            if self.owner_lost:
                deadline = now + RETRY if deadline is None else min(deadline, now + RETRY)
            wake_at = deadline
            # Observers have nothing to do with deadlines: nothing is judged when their time has come.
            if observation is not None and (due_at := observation.due_at(now)) < math.inf:
                wake_at = due_at if deadline is None else min(deadline, due_at)
            core.sleeps_until = wake_at
            if core.closed:
                return
        if wake_at is None or wake_at > now:
            # Not less than a millisecond, which is what epoll can count.
            core.poller.wait(core.watchdog.limit(None if wake_at is None else max(0.001, wake_at - now)))
            core.watchdog.look()
        elif core.poller.among_greenlets:
            time.sleep(0)  # the others get their turn between two slices of long work
        if deadline is not None and time.monotonic() >= deadline:
            self._judge(core)

    def _judge(self, core: Decisions) -> None:
        """Act upon the deadlines that have passed, by what was known in time.

        This process may have been stopped, or this thread held up in a callback, while workers and the template went
        on. So first everything is read that they had written by now: who answered is not late.
        """
        now = time.monotonic()
        self._workers.reads_all = True
        try:
            core.poller.serve_all()
        finally:
            self._workers.reads_all = False
        with core.poller.serving:
            self._workers.remove_overdue(now)
        core.handle(ev.Tick(read_until=now))
