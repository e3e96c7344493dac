"""One running swarm: its thread, its lock, its machine, and what other threads ask of it.

    user threads           put what they ask for into `_asked`, and wake the supervisor's thread; a signal handler may
                           interrupt them anywhere, so they decide nothing themselves
    the supervisor's       waits for nodes, the template, deadlines and `_asked`; has the machine decide; carries out
    thread                 what it returns (`processes`); calls the users' callbacks, without the lock

The lock guards the machine and the links for those who look at them from other threads. All changes are made in the
supervisor's thread, so no decision comes between two others.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pidfdpool import checks
from pidfdpool.executor import lifecycle
from pidfdpool.loop import death_reports
from pidfdpool.loop.poller import Poller
from pidfdpool.loop.pool_thread import PoolThread
from pidfdpool.process import interruptible, native, safe_logging
from pidfdpool.swarm import actions as do
from pidfdpool.swarm import event_feed, node_logs, snapshots, starting
from pidfdpool.swarm import inputs as ip
from pidfdpool.swarm.machine import Machine
from pidfdpool.swarm.processes import Processes
from pidfdpool.swarm.records import Phase
from pidfdpool.worker import rebuild_guard

if TYPE_CHECKING:
    from pidfdpool.swarm.options import Options
    from pidfdpool.swarm.records import NodeEvent, SwarmStatus
    from pidfdpool.template.recipe import Recipe

_log = logging.getLogger("pidfdpool.swarm")
HELD_UP = 1.0  # seconds; a wait that ends so much too late means that this process was stopped


class _Nobody:
    """No thread but its own does the work of a supervisor's thread."""

    leader: int | None = None


class Supervisor:
    """Supervises the nodes of one swarm. Thread-safe."""

    def __init__(self, options: Options, recipe: Recipe, name: str) -> None:
        self._options = options
        self._recipe = recipe
        self.name = name
        self.start_method = "fork" if recipe.fork else "exec"
        self._feed = event_feed.EventFeed(name)
        self._logs = node_logs.NodeLogs(name, self)
        self._lock = native.reentrant_lock()
        self._changed = interruptible.Condition(self._lock)
        self._owner = os.getpid()
        self.machine = Machine(options)
        self.started = False
        self._poller: Poller | None = None
        self._thread: PoolThread | None = None
        self._processes: Processes | None = None
        self._starter: starting.Starter | None = None
        self._asked: deque[ip.OfUser | Callable[[], object]] = deque()
        self._untold: deque[NodeEvent] = deque()
        self._watchers: list[Callable[[Any], object]] = []  # who wait without a thread
        self._turned_at: float | None = None
        self._abandoned = False  # this is the copy of a forked child

    # ---- its life ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the template and the thread. As `Swarm.start`."""
        self._check_owner()
        rebuild_guard.check("swarm", "node")
        begun = False
        try:
            with self._lock:
                if self.started:
                    raise RuntimeError("this swarm was started already; a swarm is started once")
                self.started = begun = True
            lifecycle.add_pool(self)
            poller = self._poller = Poller()
            thread = self._thread = PoolThread(poller, _Nobody())  # type: ignore[arg-type]
            thread.run = self._run
            processes = self._processes = Processes(poller, self._lock, fork_way=self._recipe.fork)
            processes.decide = self.decide
            processes.take_log = self._logs.take
            self._starter = starting.Starter(self._recipe, processes, self._lock, self.decide)
            self._starter.start_first(thread, self._begin)
        except BaseException:
            if begun and self._thread is not None and not self._thread.prevent():
                # A signal handler has raised, after all was done. The thread owns the descriptors by now.
                self.stop(now=True)
                self.join()
            elif begun:
                self._undo_start()
            raise

    def _begin(self) -> None:
        """Begin to decide, when the first template is there, and no thread yet."""
        self._carry_out(self.machine.start(time.monotonic()))
        self.decide(ip.TemplateUp())

    def _undo_start(self) -> None:
        with self._lock:
            self.started = False
            self.machine = Machine(self._options)
            if self._processes is not None:
                self._processes.close()
            if self._poller is not None:
                self._poller.close()
            self._poller = self._thread = self._processes = self._starter = None

    def stop(self, *, now: bool) -> None:
        """Have it end. now: by SIGKILL."""
        self._ask(ip.StopAsked(now))

    def join(self) -> None:
        """Wait until nothing is left; at once in a callback of the swarm's."""
        if self._thread is not None:
            self._thread.join()
            if not self._thread.is_current:
                self._logs.join()

    def wait(self, timeout: float | None) -> bool:
        """Wait until it has ended. As `Swarm.wait`."""
        thread = self._check_may_wait()
        if interruptible.wait(lambda: thread.is_over, self._changed, timeout):
            self.join()
            return True
        return False

    def wait_until_healthy(self, nodes: int | None, timeout: float | None) -> bool:
        """Wait until so many nodes are healthy. As `Swarm.wait_until_healthy`."""
        self._check_may_wait()
        answer = snapshots.Answer(lambda: self.outlook(nodes))
        interruptible.wait(answer.is_known, self._changed, timeout)
        return bool(answer.value)

    def outlook(self, nodes: int | None) -> bool | None:
        """Return whether so many nodes are healthy (default: all); None: that may still come."""
        with self._lock:
            if self._asked and not self.is_over:
                return None  # the number of nodes may be about to change
            return snapshots.outlook(self.machine.fleet, nodes)

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._thread is not None and self._thread.is_over

    def watch(self, tell: Callable[[Any], object]) -> Callable[[], None]:
        """Call tell(None) in its thread after whatever it does, also after its end. Return what ends that."""
        self._check_may_wait()
        return death_reports.subscribe(self._watchers, tell)

    # ---- what is asked of it -------------------------------------------------------------------------------

    @property
    def is_own(self) -> bool:
        """Whether it belongs to this process, which is not a child that was forked from its process."""
        return os.getpid() == self._owner

    def _check_owner(self) -> None:
        if not self.is_own:
            lifecycle.detect_fork()
            raise RuntimeError(
                f"this swarm belongs to process {self._owner}, from which this process (pid {os.getpid()}) was forked"
            )

    def check_started(self) -> None:
        """Raise RuntimeError if it was not started, or belongs to another process."""
        self._check_owner()
        if not self.started or self._thread is None:
            raise RuntimeError("this swarm was not started")

    def _check_may_wait(self) -> PoolThread:
        self.check_started()
        assert self._thread is not None
        if self._thread.is_current:
            raise RuntimeError("a callback of the swarm's, in its own thread, cannot wait for the swarm")
        return self._thread

    def _check_running(self) -> None:
        self.check_started()
        phase = self.machine.fleet.phase
        if phase in (Phase.STOPPING, Phase.ENDED):
            raise RuntimeError(f"this swarm {'has ended' if phase is Phase.ENDED else 'is stopping'}")

    def _ask(self, event: ip.OfUser | Callable[[], object]) -> None:
        self.check_started()
        assert self._poller is not None
        self._asked.append(event)
        self._poller.wake()

    def quiet(self) -> None:
        """As `Swarm.quiet`."""
        self._check_running()
        self._ask(ip.QuietAsked())

    def resize(self, nodes: int) -> None:
        """As `Swarm.resize`."""
        self._check_running()
        self._ask(ip.ResizeAsked(snapshots.checked_size(nodes)))

    def restart(self, *, rolling: bool) -> None:
        """As `Swarm.restart`."""
        checks.boolean("rolling", rolling)
        self._check_running()
        self._ask(ip.RestartAsked(rolling))

    def ping(self, timeout: float | None) -> bool:
        """As `Swarm.ping`. If it answers, subscribers have been told what had happened before."""
        thread = self._check_may_wait()
        answers = self.ask_for_answer()
        interruptible.wait(lambda: bool(answers) or thread.is_over, self._changed, timeout)
        return bool(answers) and not thread.is_over

    def ask_for_answer(self) -> list[bool]:
        """Return a list to which its thread adds True, before it tells who watches."""
        answers: list[bool] = []

        def answer() -> None:
            self._publish()
            answers.append(True)

        self._ask(answer)
        return answers

    def signal(self, sig: int, value: int | None, node: int | None) -> int:
        """As `Swarm.signal`."""
        self.check_started()
        number = checks.integer("sig", sig, least=0, most=signal.NSIG - 1)
        carried = checks.integer("value", value, least=-(1 << 63), most=(1 << 64) - 1, optional=True)
        wanted = checks.integer("node", node, least=0, optional=True)
        with self._lock:
            if wanted is not None and wanted not in self.machine.fleet.nodes:
                raise ValueError(f"there is no node {wanted} in this swarm of {self.machine.fleet.size}")
            return 0 if self._processes is None else self._processes.signal(number, carried, wanted)

    def stacks(self, timeout: float) -> dict[int, str]:
        """As `Swarm.stacks`."""
        self.check_started()
        return snapshots.stacks(self._processes, self._lock, timeout)

    def status(self, *, measure_memory: bool = False) -> SwarmStatus:
        """As `Swarm.status`."""
        self._check_owner()
        with self._lock:
            template = self._processes.template if self._processes is not None else None
            pid = None if template is None else template.end.pid
            restarts = ip.RestartAsked in map(type, list(self._asked))
            return snapshots.status(
                self.machine, self._processes, pid, self._turned_at, restarts=restarts, measure_memory=measure_memory
            )

    @property
    def size(self) -> int:
        """How many nodes there are to be."""
        return self.machine.fleet.size or self._options.nodes

    def describe(self) -> str:
        """Return its phase and how many nodes are healthy, for a repr. Takes no lock."""
        return snapshots.described(self.machine.fleet, self.size)

    def subscribe(self, callback: Callable[[NodeEvent], object]) -> Callable[[], None]:
        """As `Swarm.subscribe`."""
        return self._feed.subscribe(callback)

    # ---- for the hooks of the interpreter's exit, and of forks ---------------------------------------------

    def shutdown(self, *, cancel: bool) -> None:  # noqa: ARG002  what pools have to cancel, a swarm has not
        """Stop: the interpreter ends."""
        if self.started and self._thread is not None:
            self.stop(now=False)

    def kill(self, _number: int) -> None:
        """Kill: the interpreter ends by Ctrl-C."""
        if self.started and self._thread is not None:
            self.stop(now=True)

    def submit_for_lost_owner(self) -> None:
        """Do nothing: a swarm has no calls to submit."""

    def abandon_in_forked_child(self) -> None:
        """Let go of what belongs to the parent. No lock is taken: it may have been copied while held.

        A copy of the supervisor's thread (a greenlet; or a callback has forked) has nothing to do here.
        """
        self._abandoned = True
        self._logs.abandon_in_forked_child()
        if self._poller is not None:
            self._poller.close_in_forked_child()
        if self._processes is not None:
            self._processes.close_in_forked_child()

    # ---- the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        assert self._thread is not None
        try:
            while not self._abandoned and self.machine.fleet.phase is not Phase.ENDED:
                self._turn()
        except BaseException as error:
            if not self._abandoned:
                message = "the supervisor's thread failed; the swarm ends"
                safe_logging.log(_log, logging.CRITICAL, message, exc_info=error)
        finally:
            if not self._abandoned:
                self._end()

    def _end(self) -> None:
        assert self._processes is not None
        assert self._poller is not None
        assert self._thread is not None
        with self._lock:
            self.machine.fleet.phase = Phase.ENDED
            self._processes.close()
            self._poller.close()
        self._publish()
        self._thread.note_end()
        with self._lock:
            self._changed.notify_all()
        self._publish()  # now there is the end to tell

    def _turn(self) -> None:
        assert self._processes is not None
        assert self._poller is not None
        assert self._starter is not None
        self._turned_at = time.monotonic()
        self._starter.go_on()
        while self._asked:
            asked = self._asked[0]
            if callable(asked):
                asked()
            else:
                self.decide(asked)
            self._asked.popleft()  # not before: who looks meanwhile is to see that something was asked
            with self._lock:
                self._changed.notify_all()
        self._processes.handle_early_frames()
        self._publish()
        with self._lock:
            if self._abandoned or self._asked or self._starter.wanted or self.machine.fleet.phase is Phase.ENDED:
                return
            times = (self.machine.deadline(), self._processes.overdue_at)
        deadline = min((time_ for time_ in times if time_ is not None), default=None)
        now = time.monotonic()
        if deadline is None or deadline > now:
            # Not less than a millisecond, which is what epoll can count.
            self._poller.wait(None if deadline is None else max(0.001, deadline - now))
        if deadline is not None and time.monotonic() >= deadline:
            self._judge(deadline)

    def _judge(self, deadline: float) -> None:
        """Act upon the deadlines that have passed, by what nodes had said in time: all of that is read before."""
        assert self._poller is not None
        assert self._processes is not None
        now = time.monotonic()
        if now - deadline > HELD_UP:
            self.decide(ip.HeldUp(now - deadline))
        self._poller.serve_all()
        self._processes.remove_overdue(now)
        self.decide(ip.Tick(), now)

    def decide(self, event: ip.Input, now: float | None = None) -> None:
        """Have the machine decide, and carry out what it returns. In the supervisor's thread."""
        with self._lock:
            self._carry_out(self.machine.decide(event, time.monotonic() if now is None else now))
            self._changed.notify_all()

    def _carry_out(self, actions: list[do.Action]) -> None:
        assert self._processes is not None
        assert self._starter is not None
        waiting = deque(actions)
        while waiting:
            action = waiting.popleft()
            if isinstance(action, do.Tell):
                self._untold.append(event_feed.made_of(action))
            elif isinstance(action, do.StartTemplate):
                self._starter.wanted = True
            else:
                follows = self._processes.carry_out(action)
                if follows is not None:
                    waiting.extend(self.machine.decide(follows, time.monotonic()))

    def _publish(self) -> None:
        """Call the users' callbacks, without the lock, and tell who waits for a change."""
        while self._untold:
            self._feed.publish(self._untold.popleft())
        for tell in list(self._watchers):
            tell(None)
