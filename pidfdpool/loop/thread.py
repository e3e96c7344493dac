"""The pool thread: waits for workers, the template and deadlines, and tells the pool what happened.

Started by the first submit, when the template is up; asleep until something happens; ends when the machine says that
nothing is left. It blocks all signals, so the host's handlers run where they always ran. Where the host has replaced
threads by greenlets, it is one of them.

If anything in here fails that should not, no future may hang: the last resort fails them all.
"""

from __future__ import annotations

import _thread
import itertools
import logging
import signal
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from pidfdpool import describing, hygiene, interruptible, journal, native, wire
from pidfdpool import events as ev
from pidfdpool.loop import ending, hearing
from pidfdpool.loop.links import ORPHAN_GRACE
from pidfdpool.loop.outcomes import told_error
from pidfdpool.loop.poller import WRITE
from pidfdpool.pidfd import ExitStatus
from pidfdpool.rules import Template

if TYPE_CHECKING:
    from pidfdpool.loop.links import TemplateLink, WorkerLink
    from pidfdpool.loop.pool import Pool
    from pidfdpool.wire import Frame

_log = logging.getLogger("pidfdpool")
_numbers = itertools.count(1)


class PoolThread:
    """The thread of one pool, and what is called in it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._thread: threading.Thread | None = None  # None as well where it is a greenlet
        self._over = threading.Event()
        self._ident: int | None = None
        self.started = False  # whether the thread was started
        self._failure: BaseException | None = None
        self._ended: list[WorkerLink] = []  # ended, but the template has not said how
        self._reads_all = False  # each channel that is ready, not once but to its end

    # ---- for other threads ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, with every signal blocked in it. Idempotent.

        Raises:
            RuntimeError: the system allows no further thread.
        """
        if self.started:
            return
        if native.threads_are_greenlets():
            # It has no signal mask of its own. Nor is it a Thread: a process that the host forks has a copy of it,
            # which `threading` believes to be gone, and complains of when it ends.
            self.started = True
            self._pool.poller.among_greenlets = True
            _thread.start_new_thread(self._run, ())
            return
        # Blocked here as well: a handler that raised in the middle would leave a thread of which nobody knows
        # whether it was started.
        with hygiene.signals_blocked():
            thread = threading.Thread(target=self._run, name=f"pidfdpool-{next(_numbers)}", daemon=True)
            thread.start()
            self._thread = thread
            self.started = True

    def start_or_end(self) -> None:
        """Start the thread; if there can be none, end the pool, for nobody would ever be told anything.

        Futures that other threads have got meanwhile fail, and the template leaves. The caller has not got the lock.

        Raises:
            RuntimeError: the system allows no further thread.
        """
        try:
            self.start()
        except RuntimeError as error:
            pool = self._pool
            pool.stillborn = True
            ending.last_resort(pool, error)
            with pool.lock:
                ending.close_everything(pool)
            raise

    @property
    def is_itself(self) -> bool:
        """Whether the caller runs in this thread."""
        return self._ident == threading.get_ident()

    @property
    def is_current(self) -> bool:
        """Whether the caller runs in this thread, or does its work."""
        return threading.get_ident() in (self._ident, self._pool.leading.serving)

    def join(self) -> None:
        """Wait until the thread has ended; at once if it was never started, or is the caller."""
        if self.started and not self.is_current:
            if self._thread is None:
                self._over.wait()
                return
            steps = interruptible.Steps(None)
            while self._thread.is_alive():
                self._thread.join(steps.next())

    @property
    def has_failed(self) -> bool:
        """Whether the pool is about to be broken by its thread."""
        return self._failure is not None

    def fail(self, error: BaseException) -> None:
        """Have the pool broken by its thread: a decision was left half done, and none must follow it."""
        self._failure = error
        self._pool.machine.give_up(ending.told(error))
        self.start()
        self._pool.poller.wake()

    def serve_template(self, link: TemplateLink) -> None:
        """Begin to watch a new template. The caller has the lock."""
        assert link.end.handle is not None
        link.watch_channel(self._on_template_channel)
        link.watch_exit(link.end.handle, self._on_template_exit)
        if link.end.early:
            self._pool.poller.wake()

    # ---- the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._ident = threading.get_ident()
        pool = self._pool
        try:
            while not pool.closed:
                self._turn(pool)
        except BaseException as error:
            if not pool.abandoned:
                # What is no Exception came from a signal handler, and has ended a call of the user's, where it is
                # on its way to whom it concerns: sys.exit() in a handler of SIGTERM is no reason to complain.
                level = logging.CRITICAL if issubclass(type(error), Exception) else logging.INFO
                journal.write(_log, level, "the pool thread failed; the pool is broken", exc_info=error)
                ending.last_resort(pool, error)
        finally:
            # A greenlet that was copied into a forked child has nothing to close there, nor has a child that was
            # forked in a callback and came back from it.
            if not pool.abandoned:
                with pool.lock:
                    pool.closed = True
                pool.leading.end()
                with pool.lock:
                    ending.close_everything(pool)
                pool.leading.finish()
                pool.catch_up()
                self._over.set()

    def _turn(self, pool: Pool) -> None:
        if self._failure is not None:
            raise self._failure
        pool.catch_up()
        pool.starter.if_wanted()
        if pool.owner_lost:
            pool.owner_lost = False
            pool.happen(ev.ShutdownAsked())
        if pool.template is not None and pool.template.end.early:
            with pool.poller.serving:
                frames, pool.template.end.early = pool.template.end.early, []
                self._serve_template_frames(pool.template, frames)
        now = time.monotonic()
        with pool.lock:
            deadline = pool.machine.deadline()
            if self._ended:
                overdue = min(link.overdue_at for link in self._ended)
                deadline = overdue if deadline is None else min(deadline, overdue)
            if pool.lender.arena.segments or pool.lender.arena.let_go:
                deadline = pool.lender.rest(now, deadline)
            pool.sleeps_until = deadline
            if pool.closed:
                return
        if deadline is None or deadline > now:
            # Not less than a millisecond, which is what epoll can count.
            pool.poller.wait(None if deadline is None else max(0.001, deadline - now))
        if deadline is not None and time.monotonic() >= deadline:
            self._judge(pool)

    def _judge(self, pool: Pool) -> None:
        """Act upon the deadlines that have passed, by what was known in time.

        This process may have been stopped, or this thread held up in a callback, while workers and the template went
        on. So first everything is read that they had written by now: who answered is not late.
        """
        now = time.monotonic()
        self._reads_all = True
        try:
            pool.poller.serve_all()
        finally:
            self._reads_all = False
        with pool.poller.serving:
            self._bury_overdue(now)
        pool.happen(ev.Tick(heard_until=now))

    # ---- workers -------------------------------------------------------------------------------------------

    def on_channel(self, link: WorkerLink, mask: int) -> None:
        """Serve a worker's channel. In the pool thread or the leader."""
        if not self._pool.leading.is_serving:
            self._pool.leading.catch_up()  # what the leader has left comes before what is read now
        if mask & WRITE:
            with self._pool.lock:
                link.flush()
        if self._reads_all:
            link.read_all(partial(self._serve_worker, link))
        else:
            self._serve_worker(link)

    def _serve_worker(self, link: WorkerLink) -> None:
        """Read once, and tell what was said."""
        frames: list[Frame] = []
        try:
            frames = link.read()
            fault = link.channel.fault
        except wire.WireError as error:
            fault = error
        hearing.hear(self._pool, link, frames)
        if fault is not None:
            hearing.reject(self._pool, link, fault)
        elif not frames and not link.reading and link.ended_at is None:
            self._pool.happen(ev.HungUp(link.slot, link.generation))

    def _on_worker_exit(self, link: WorkerLink, _mask: int) -> None:
        """Note that a worker's pidfd is readable: it has ended, and has said all that it will ever say."""
        assert link.handle is not None
        with self._pool.lock:
            link.stop_watching_exit()
        link.ended_at = time.monotonic()
        if link.status is None and self._pool.template is None:
            link.status = _known(link.handle.exit_status())
        if link.status is not None:
            self._bury(link, link.status)
        else:
            # The template is about to tell how, and what the worker had used. What needs no such word is done now.
            self._ended.append(link)
            self._hear_out(link)
            with self._pool.lock:
                self._pool.witness.look()

    def _bury_overdue(self, now: float) -> None:
        for link in list(self._ended):
            if now >= link.overdue_at:
                # The template, stopped or gone, may not have killed what the worker had started.
                link.signal(signal.SIGKILL)
                status = link.handle.exit_status() if link.handle is not None else None
                self._bury(link, status or ExitStatus.UNKNOWN)

    def _hear_out(self, link: WorkerLink) -> None:
        """Read all that a dead worker wrote: it counts."""
        while link.reading:
            before = link.channel.received
            self._serve_worker(link)
            if link.channel.received == before:
                break  # some other process holds the worker's end; nothing more will come of it

    def _bury(self, link: WorkerLink, status: ExitStatus) -> None:
        """Hear the last of a worker, tell who waits for its task, then forget it and ask for another one."""
        self._hear_out(link)
        pool = self._pool
        with suppress(ValueError):
            self._ended.remove(link)
        evidence = link.evidence()
        with pool.lock:
            if pool.workers.get(link.slot) is link:
                del pool.workers[link.slot]
            unbegun = link.progress.unbegun(pool.machine.held(link.slot, link.generation))
            link.account.close()
            resolutions = pool.decide_death(ev.Died(link.slot, link.generation, status, unbegun), evidence)
        try:
            pool.leading.run(resolutions)
        finally:
            with pool.lock:
                link.close()
        pool.spawn_put_off()

    # ---- the template --------------------------------------------------------------------------------------

    def _on_template_channel(self, mask: int) -> None:
        template = self._pool.template
        if template is None:
            return
        if mask & WRITE:
            with self._pool.lock:
                template.flush()
        if self._reads_all:
            template.read_all(partial(self._serve_template, template))
        else:
            self._serve_template(template)

    def _serve_template(self, template: TemplateLink) -> None:
        """Read once, and do what was said."""
        self._serve_template_frames(template, template.read())

    def _serve_template_frames(self, template: TemplateLink, frames: list[Frame]) -> None:
        pool = self._pool
        for frame in frames:
            link = pool.workers.get(frame.slot)
            mine = link if link is not None and link.generation == frame.generation else None
            if frame.kind in (wire.BLACKBOX, wire.STDERR):
                self._on_evidence(template, frame, mine)
            elif frame.kind == wire.SPAWNED:
                self._on_spawned(template, frame, mine)
            elif frame.kind == wire.BOOTED:
                pool.happen(ev.TemplateBooted())
            elif frame.kind == wire.SPAWN_FAILED:
                with pool.lock:
                    self._drop(mine)
                error = OSError(frame.value, "the template could not fork")
                pool.happen(ev.SpawnFailed(frame.slot, frame.generation, str(error)))
            elif frame.kind == wire.DIED and mine is not None:
                mine.status = ExitStatus.from_wait_status(frame.value)
                mine.usage = wire.USAGE.unpack(frame.buffers[0])
                self._bury(mine, mine.status)
            elif frame.kind == wire.PRELOAD_FAILED:
                pool.cause = told_error(frame.buffers)
                self._lose_template(ev.TemplateHopeless(f"the preload failed: {describing.repr_of(pool.cause)}"))

    def _on_evidence(self, template: TemplateLink, frame: Frame, link: WorkerLink | None) -> None:
        fd = template.channel.descriptor()
        if fd is None:
            return  # no descriptor number was left: there will be the less to tell
        if link is None:
            native.close(fd)
        elif frame.kind == wire.BLACKBOX:
            link.take_blackbox(fd)
        else:
            with self._pool.lock:
                link.take_stderr(fd)

    def _on_spawned(self, template: TemplateLink, frame: Frame, link: WorkerLink | None) -> None:
        fd = template.channel.descriptor()
        if fd is None or link is None:
            # Without its descriptor the worker cannot be watched; it leaves when its channel closes.
            with self._pool.lock:
                self._drop(link)
            self._pool.happen(ev.SpawnFailed(frame.slot, frame.generation, "no descriptor number left"))
            return
        handle = template.end.worker_handle(fd, frame.value, frame.slot, frame.generation)
        with self._pool.lock:
            link.watch_exit(handle, lambda mask: self._on_worker_exit(link, mask))
        self._pool.happen(ev.Spawned(frame.slot, frame.generation, frame.value))
        if link.ready_early:
            self._pool.happen(ev.Ready(frame.slot, frame.generation))

    def _drop(self, link: WorkerLink | None) -> None:
        """Close the host's end of a worker that never came to be. The caller has the lock."""
        if link is not None:
            self._pool.workers.pop(link.slot, None)
            link.close()

    def _on_template_exit(self, _mask: int) -> None:
        template = self._pool.template
        assert template is not None
        while frames := template.read():
            self._serve_template_frames(template, frames)
        if self._pool.template is not template:
            return  # one of the frames said so already
        asked = self._pool.machine.template is Template.STOPPING
        # If the host is its subreaper, or pid 1, the template has become its child again: this reaps it.
        status = template.handle.exit_status() if template.handle is not None else None
        reason = f"the template (pid {template.end.pid}) ended: {status}"
        if self._pool.recipe.fork and not asked:
            self._lose_template(ev.TemplateHopeless(f"{reason}. It was forked from the host, which forks only once."))
        else:
            self._lose_template(ev.TemplateLost(reason))

    def _lose_template(self, event: ev.TemplateLost | ev.TemplateHopeless) -> None:
        pool = self._pool
        with pool.lock:
            template, pool.template = pool.template, None
            if template is not None:
                template.close()
            for link in list(pool.workers.values()):
                link.report_within = ORPHAN_GRACE
                if link.handle is None:
                    self._drop(link)
                else:
                    link.signal(signal.SIGKILL)  # the kernel kills the worker; this reaches what it started
            resolutions = pool.decide(event)
        pool.leading.run(resolutions)


def _known(status: ExitStatus | None) -> ExitStatus | None:
    return None if status is None or status.unknown else status
