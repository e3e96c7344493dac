"""What the threads that submit and the pool thread share: one pool, and the carrying out of its decisions.

One lock guards the machine, the tasks and every write. It is held for decisions and for I/O that cannot block, never
while a user's code runs: pickles are rebuilt and futures resolved by the *resolutions* that `decide` returns, which
its caller runs after it released the lock. Reading and closing are the pool thread's alone.

A thread that submits carries out its own decision: it writes to the idle worker, or asks the template for a worker,
without waking the pool thread. That is woken only where it has something to start, or a deadline has come closer.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from pidfdpool import channel as channels
from pidfdpool import events as ev
from pidfdpool import payload, wire
from pidfdpool.errors import InheritedFutureError, PayloadError, PoolBroken, TemplateError, WorkerCrashed
from pidfdpool.loop.links import TemplateLink, WorkerLink
from pidfdpool.loop.poller import Poller
from pidfdpool.loop.thread import PoolThread
from pidfdpool.machine import Machine
from pidfdpool.rules import Phase
from pidfdpool.template import client

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from pidfdpool.futures import Future
    from pidfdpool.policy import Policy
    from pidfdpool.wire import Buffer, Frame

    Resolution: TypeAlias = Callable[[], None]

_log = logging.getLogger("pidfdpool")


class Task:
    """What the host keeps of an accepted task until its future is resolved."""

    __slots__ = ("begun", "buffers", "future", "name")

    def __init__(self, future: Future[Any], buffers: list[Buffer], name: str) -> None:
        self.future = future
        self.buffers = buffers
        self.name = name
        self.begun = False


class Pool:
    """One pool, from its first submit until everything of it is gone.

    Every method takes the lock itself, except where it says that the caller holds it.
    """

    def __init__(self, policy: Policy, recipe: client.Recipe) -> None:
        self.lock = threading.Lock()
        self.machine = Machine(policy)
        self.recipe = recipe
        self.poller = Poller()
        self.tasks: dict[int, Task] = {}
        self.workers: dict[int, WorkerLink] = {}  # by slot
        self.template: TemplateLink | None = None
        self.closed = False
        self.owner_lost = False  # set without the lock, by the collector
        self.sleeps_until: float | None = 0.0  # what the pool thread's current wait ends at; None: nothing
        self.cause: BaseException | None = None  # of the break
        self.unrun: list[Resolution] = []
        self._start_wanted = False
        self._count = 0
        self._thread = PoolThread(self)
        self._carry_out: dict[type[Any], Callable[[Any], ev.Event | None]] = {
            ev.Send: self._send,
            ev.Spawn: self._spawn,
            ev.Stop: self._stop,
            ev.Signal: self._signal,
            ev.StartTemplate: self._start_template,
            ev.StopTemplate: self._stop_template,
            ev.Close: self._close,
        }
        self._resolve: dict[type[Any], Callable[[Any, Frame | None], Resolution]] = {
            ev.Deliver: self._deliver,
            ev.Withdraw: self._withdraw,
            ev.FailCrashed: self._fail_crashed,
            ev.FailBroken: self._fail_broken,
        }

    # ---- for the executor ----------------------------------------------------------------------------------

    def submit(self, future: Future[Any], buffers: list[Buffer], name: str) -> None:
        """Accept a task and hand it to an idle worker, if there is one.

        Raises:
            PoolBroken: the pool is broken.
            RuntimeError: it is shut down.
        """
        with self.lock:
            self.check_open()
            self._count += 1
            number = self._count
            self.tasks[number] = Task(future, buffers, name)
            future._attach(partial(self.withdraw, number))
            resolutions = self._decide_guarded(ev.Submitted(number))
            starts = not self._thread.started and self._claim_start()
        run(resolutions)
        if starts:
            # The first submit starts the template itself. If it is forked from the host, that is done while the
            # pool thread does not exist yet: a host without threads is forked without threads.
            self._first_start(number)

    def check_open(self) -> None:
        """Raise if no task is accepted. The caller holds the lock, or does not mind a stale answer."""
        if self.machine.broken is not None:
            raise self.broken_error(self.machine.broken)
        if self.machine.phase is not Phase.OPEN:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def withdraw(self, number: int) -> None:
        """Take a cancelled task out of the queue."""
        self.happen(ev.Cancelled(number))

    def shutdown(self, *, cancel: bool) -> None:
        """Accept no more; finish what is there, or cancel what no worker has been given."""
        self.happen(ev.ShutdownAsked(cancel))

    def kill(self, signal: int) -> None:
        """Shut down, cancel what is queued, signal every worker."""
        self.happen(ev.KillAsked(signal))

    def join(self) -> None:
        """Wait until everything is gone."""
        self._thread.join()

    def live_as_long_as(self, owner: object) -> None:
        """Shut down, after what was submitted, when the owner is collected: nobody can submit any more."""
        self._owner = weakref.ref(owner, self._owner_is_lost)

    def _owner_is_lost(self, _reference: object) -> None:
        # The collector calls this in any thread at any point, so it takes no lock.
        self.owner_lost = True
        self.poller.wake()

    def abandon_in_forked_child(self) -> None:
        """Let go of everything in a process that was forked while the pool was alive; the parent goes on.

        No lock is taken and nothing unregistered: locks may have been copied while held, and what epoll watches is
        the parent's too.
        """
        self.closed = True
        self.poller.close_in_forked_child()
        for link in [*self.workers.values(), self.template]:
            # The fork may have come between any two steps of the pool thread's.
            with suppress(OSError):
                if link is not None:
                    link.close_in_forked_child()
        message = (
            "this future was pending when its process was forked: the task runs on for the parent process, and only "
            "there its result will arrive. Submit again in the child, whose executor has workers of its own."
        )
        for task in list(self.tasks.values()):
            task.future._fail_in_forked_child(InheritedFutureError(message))

    # ---- deciding ------------------------------------------------------------------------------------------

    def happen(self, event: ev.Event, frame: Frame | None = None) -> None:
        """Take an event, carry out what follows from it, and resolve what is to be resolved."""
        with self.lock:
            resolutions = self._decide_guarded(event, frame)
        run(resolutions)

    def _decide_guarded(self, event: ev.Event, frame: Frame | None = None) -> list[Resolution]:
        """Decide in a thread of the user's, which may be interrupted anywhere (Ctrl-C). The caller has the lock.

        What was being decided is then half done, and nothing in here can be trusted: the pool thread breaks the
        pool, which is better than a future that nobody resolves.
        """
        try:
            return self.decide(event, frame)
        except BaseException as error:
            self._thread.fail(error)
            raise

    def decide(self, event: ev.Event, frame: Frame | None = None) -> list[Resolution]:
        """Take an event and carry out what follows; return what to run without the lock. The caller has it."""
        resolutions: list[Resolution] = []
        if self.closed:
            return resolutions
        events = deque([event])
        try:
            while events:
                for action in self.machine.decide(events.popleft(), time.monotonic()):
                    kind = type(action)
                    if kind in self._carry_out:
                        following = self._carry_out[kind](action)
                        if following is not None:
                            events.append(following)
                    else:
                        resolutions.append(self._resolve[kind](action, frame))
        except BaseException:
            self.unrun += resolutions  # for the last resort: their tasks are not in `tasks` any more
            raise
        deadline = self.machine.deadline()
        if deadline is not None and (self.sleeps_until is None or deadline < self.sleeps_until):
            self.sleeps_until = deadline
            self.poller.wake()
        return resolutions

    # ---- actions on processes ------------------------------------------------------------------------------

    def _send(self, action: ev.Send) -> ev.Event | None:
        task = self.tasks[action.task]
        if not task.begun:
            if not task.future._begin():
                del self.tasks[action.task]
                return ev.Declined(action.slot, action.generation, action.task)
            task.begun = True
        try:
            self.workers[action.slot].post(wire.encode(wire.TASK, value=action.task, buffers=task.buffers))
        except OSError:
            return ev.SendRefused(action.slot, action.generation, action.task)
        return None

    def _spawn(self, action: ev.Spawn) -> ev.Event | None:
        assert self.template is not None
        try:
            ours, theirs = channels.pair()
        except OSError as error:
            return ev.SpawnFailed(action.slot, action.generation, f"socketpair: {error}")
        link = WorkerLink(action.slot, action.generation, ours, self.poller)
        self.workers[action.slot] = link
        link.watch_channel(partial(self._thread.on_channel, link))
        self.template.tell(wire.encode(wire.SPAWN, action.slot, action.generation), theirs.detach())
        return None

    def _stop(self, action: ev.Stop) -> None:
        self.workers[action.slot].leave()

    def _signal(self, action: ev.Signal) -> None:
        self.workers[action.slot].signal(action.signal)

    def _start_template(self, _action: ev.StartTemplate) -> None:
        # Not here, where the lock is held: starting takes as long as an interpreter takes to start.
        self._start_wanted = True
        if self._thread.started:
            self.poller.wake()

    def _stop_template(self, _action: ev.StopTemplate) -> None:
        assert self.template is not None
        self.template.tell(wire.encode(wire.STOP))

    def _close(self, _action: ev.Close) -> None:
        self.closed = True
        self.poller.wake()

    # ---- starting a template -------------------------------------------------------------------------------

    def _claim_start(self) -> bool:
        """Return whether a start is wanted, and make it the caller's to do. The caller has the lock."""
        wanted, self._start_wanted = self._start_wanted, False
        return wanted

    def start_if_wanted(self) -> None:
        """Start a template if the machine has asked for one. In the pool thread, without the lock."""
        with self.lock:
            if not self._claim_start():
                return
        self._start()

    def _first_start(self, number: int) -> None:
        try:
            self._start()
        except BaseException:
            # Interrupted, by Ctrl-C most likely: whoever submitted gets no future, so the task must not run.
            self.happen(ev.TemplateLost("its start was interrupted"))
            self.withdraw(number)
            raise
        finally:
            self._thread.start()

    def _start(self) -> None:
        event: ev.Event
        end = None
        try:
            end = client.start(self.recipe)
            event = ev.TemplateUp()
        except (TemplateError, FileNotFoundError, PermissionError, NotADirectoryError) as error:
            self.cause = error
            event = ev.TemplateHopeless(f"the template cannot be started: {error}")
        except OSError as error:
            event = ev.TemplateLost(f"it could not be started: {error}")
        except Exception as error:
            self.cause = error
            event = ev.TemplateHopeless(f"the initializer or preload cannot be sent to workers: {error!r}")
        with self.lock:
            if end is not None:
                self.template = TemplateLink(end, self.poller)
                self._thread.serve_template(self.template)
            resolutions = self.decide(event)
        run(resolutions)

    # ---- resolving futures: each returns what to run without the lock ----------------------------------------

    def _deliver(self, action: ev.Deliver, frame: Frame | None) -> Resolution:
        assert frame is not None
        return partial(_deliver, self.tasks.pop(action.task).future, frame.kind, frame.buffers)

    def _withdraw(self, action: ev.Withdraw, _frame: Frame | None) -> Resolution:
        return self.tasks.pop(action.task).future._resolve_cancelled

    def _fail_crashed(self, action: ev.FailCrashed, _frame: Frame | None) -> Resolution:
        task = self.tasks.pop(action.task)
        error = WorkerCrashed(
            slot=action.slot,
            generation=action.generation,
            pid=action.pid,
            exit_status=action.status,
            task=task.name,
            task_id=action.task,
            uptime=action.uptime,
            tasks_done=action.tasks_done,
        )
        return partial(task.future._resolve, None, error)

    def _fail_broken(self, action: ev.FailBroken, _frame: Frame | None) -> Resolution:
        return partial(self.tasks.pop(action.task).future._resolve, None, self.broken_error(action.reason))

    def broken_error(self, reason: str) -> PoolBroken:
        """Return a new instance of the error that tells why the pool is broken."""
        error = PoolBroken(f"the pool is broken and runs no more tasks: {reason}")
        error.__cause__ = self.cause
        return error


def run(resolutions: list[Resolution]) -> None:
    """Resolve futures, without the lock: this runs pickles and callbacks of the user's."""
    for resolution in resolutions:
        resolution()


def _deliver(future: Future[Any], kind: int, buffers: list[Buffer]) -> None:
    if kind == wire.ERROR:
        future._resolve(None, payload.load_error(buffers))
        return
    try:
        result = payload.loads(buffers)
    except BaseException as failure:
        error = PayloadError(f"the result cannot be unpickled in the host: {type(failure).__name__}: {failure}")
        error.__cause__ = failure
        future._resolve(None, error)
    else:
        future._resolve(result, None)
