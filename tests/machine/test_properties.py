"""The promises about tasks, against every order of events that Hypothesis can think of.

A model of the outside world (a template, workers, futures) carries out the machine's actions and answers with events,
late, out of order between processes, or not at all because a process died. Whatever happens:

  1. every accepted task is resolved exactly once,
  2. a task that a worker has read is never sent again,
  3. the outcome of a task that its worker wrote is delivered,
  4. a worker's death fails the task that it was running and no other.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from pidfdpool import events as ev
from pidfdpool.machine import Machine
from pidfdpool.pidfd import ExitStatus
from pidfdpool.policy import Policy
from pidfdpool.rules import Phase, State

KILLED = ExitStatus.from_wait_status(9)


class FakeWorker:
    """A worker as the world sees it."""

    def __init__(self, slot: int, generation: int) -> None:
        self.slot = slot
        self.generation = generation
        self.spawned = False
        self.ready = False
        self.told_to_leave = False
        self.killed = False
        self.sent: int | None = None  # in its channel, not yet read
        self.running: int | None = None


class World(RuleBasedStateMachine):
    """Everything around the machine, driven by Hypothesis."""

    tasks = Bundle("tasks")

    def __init__(self) -> None:
        super().__init__()
        self.machine: Machine | None = None  # made by `begin`

    @initialize(
        workers=st.integers(1, 3),
        limit=st.sampled_from([None, 1, 2]),
        on_crash=st.sampled_from(["isolate", "break"]),
    )
    def begin(self, workers, limit, on_crash):
        self.machine = Machine(Policy(max_workers=workers, max_tasks_per_child=limit, on_crash=on_crash))
        self.on_crash = on_crash
        self.now = 0.0
        self.template = "down"  # down, starting, up, stopping
        self.workers: dict[int, FakeWorker] = {}
        self.accepted: set[int] = set()
        self.resolved: dict[int, str] = {}
        self.read: set[int] = set()
        self.written: set[int] = set()
        self.may_fail: set[int] = set()  # tasks whose worker died after reading them
        self.killing = False
        self.closed = False
        self.refuse_next = False
        self.decline_next = False

    # ---- carrying out actions ------------------------------------------------------------------------------

    def happen(self, event):
        self.now += 0.001
        events = [event]
        while events:
            for action in self.machine.decide(events.pop(0), self.now):
                events += self.carry_out(action)

    def resolve(self, task, how):
        assert task in self.accepted
        assert task not in self.resolved, f"task {task} resolved twice"
        self.resolved[task] = how

    def carry_out(self, action):
        assert not self.closed, f"{action} after Close"
        worker = self.workers.get(getattr(action, "slot", None))
        if isinstance(action, ev.Spawn):
            assert worker is None, "spawned into an occupied slot"
            assert self.template == "up"
            self.workers[action.slot] = FakeWorker(action.slot, action.generation)
        elif isinstance(action, ev.Send):
            assert worker.generation == action.generation
            assert worker.ready
            assert worker.sent is None
            assert worker.running is None
            assert action.task not in self.read, "a task that may have run was sent again"
            assert action.task not in self.resolved
            if self.decline_next:
                self.decline_next = False
                self.resolve(action.task, "cancelled")
                return [ev.Declined(action.slot, action.generation, action.task)]
            if self.refuse_next:
                self.refuse_next = False
                worker.killed = True
                return [ev.SendRefused(action.slot, action.generation, action.task)]
            worker.sent = action.task
        elif isinstance(action, ev.Stop):
            worker.told_to_leave = True
        elif isinstance(action, ev.Signal):
            assert worker.generation == action.generation
            worker.killed = True
        elif isinstance(action, ev.Deliver):
            assert action.task in self.written
            self.resolve(action.task, "delivered")
        elif isinstance(action, ev.Withdraw):
            assert action.task not in self.read
            self.resolve(action.task, "cancelled")
        elif isinstance(action, ev.FailCrashed):
            assert action.task in self.may_fail or self.killing, "a death failed a task that was not running in it"
            self.resolve(action.task, "crashed")
        elif isinstance(action, ev.FailBroken):
            assert self.machine.broken or self.machine.phase is not Phase.OPEN
            self.resolve(action.task, "broken")
        elif isinstance(action, ev.StartTemplate):
            assert self.template == "down"
            self.template = "starting"
        elif isinstance(action, ev.StopTemplate):
            assert self.template == "up"
            self.template = "stopping"
        elif isinstance(action, ev.Close):
            assert not self.workers
            assert self.template == "down"
            assert self.accepted == set(self.resolved), "closed with tasks unresolved"
            self.closed = True
        return []

    def pick(self, data, wanted):
        found = [w for w in self.workers.values() if wanted(w)]
        return data.draw(st.sampled_from(found)) if found else None

    # ---- what the caller does ------------------------------------------------------------------------------

    running = precondition(lambda self: not self.closed)

    @running
    @rule(target=tasks)
    def submit(self):
        task = len(self.accepted) + 1
        if self.machine.phase is Phase.OPEN:
            self.accepted.add(task)
            self.happen(ev.Submitted(task))
        return task

    @running
    @rule(task=tasks)
    def cancel(self, task):
        self.happen(ev.Cancelled(task))

    @running
    @rule(cancel=st.booleans())
    @precondition(lambda self: len(self.accepted) > 4)
    def shut_down(self, cancel):
        self.happen(ev.ShutdownAsked(cancel))

    @running
    @rule()
    @precondition(lambda self: len(self.accepted) > 8)
    def kill_all(self):
        self.killing = True
        self.happen(ev.KillAsked(9))

    @running
    @rule(seconds=st.sampled_from([0.01, 0.3, 6.0, 40.0]))
    def time_passes(self, seconds):
        self.now += seconds
        self.happen(ev.Tick())

    @running
    @rule(refuse=st.booleans())
    def next_send_goes_wrong(self, refuse):
        self.refuse_next, self.decline_next = refuse, not refuse

    # ---- what the template does ----------------------------------------------------------------------------

    @running
    @rule(works=st.integers(0, 5))
    @precondition(lambda self: self.template == "starting")
    def template_starts(self, works):
        if works:
            self.template = "up"
            self.happen(ev.TemplateUp())
        else:
            self.template = "down"
            self.happen(ev.TemplateLost("could not be started"))

    @running
    @rule()
    @precondition(lambda self: self.template in ("up", "stopping"))
    def template_dies(self):
        self.template = "down"
        self.workers = {slot: w for slot, w in self.workers.items() if w.spawned}
        for worker in self.workers.values():
            worker.killed = True
        self.happen(ev.TemplateLost("killed"))

    @running
    @rule()
    @precondition(lambda self: self.template in ("up", "starting") and len(self.accepted) > 6)
    def template_is_hopeless(self):
        self.template = "down"
        self.workers = {slot: w for slot, w in self.workers.items() if w.spawned}
        for worker in self.workers.values():
            worker.killed = True
        self.happen(ev.TemplateHopeless("its preload fails"))
        assert self.machine.phase not in (Phase.OPEN, Phase.DRAINING)

    @running
    @rule(data=st.data(), works=st.integers(0, 5))
    @precondition(lambda self: self.template in ("up", "stopping"))
    def template_forks(self, data, works):
        worker = self.pick(data, lambda w: not w.spawned)
        if worker is None:
            return
        if works:
            worker.spawned = True
            self.happen(ev.Spawned(worker.slot, worker.generation, 1000 + worker.generation))
        else:
            del self.workers[worker.slot]
            self.happen(ev.SpawnFailed(worker.slot, worker.generation, "no more processes"))

    # ---- what workers do -----------------------------------------------------------------------------------

    @running
    @rule(data=st.data())
    def worker_gets_ready(self, data):
        worker = self.pick(data, lambda w: w.spawned and not w.ready)
        if worker is not None:
            worker.ready = True
            self.happen(ev.Ready(worker.slot, worker.generation))

    @running
    @rule(data=st.data())
    def worker_reads(self, data):
        worker = self.pick(data, lambda w: w.sent is not None)
        if worker is not None:
            worker.running, worker.sent = worker.sent, None
            assert worker.running not in self.read, "a task runs twice"
            self.read.add(worker.running)

    @running
    @rule(data=st.data())
    def worker_finishes(self, data):
        worker = self.pick(data, lambda w: w.running is not None)
        if worker is not None:
            task, worker.running = worker.running, None
            self.written.add(task)
            self.happen(ev.Finished(worker.slot, worker.generation, task))
            if not self.machine.broken:
                assert self.resolved.get(task) == "delivered"

    @running
    @rule(data=st.data())
    def worker_leaves(self, data):
        worker = self.pick(data, lambda w: w.told_to_leave and w.spawned and w.running is None and w.sent is None)
        if worker is not None:
            del self.workers[worker.slot]
            self.happen(ev.Died(worker.slot, worker.generation, ExitStatus.from_wait_status(0)))

    @running
    @rule(data=st.data())
    def worker_dies(self, data):
        self.bury(self.pick(data, lambda w: w.spawned))

    def bury(self, worker):
        if worker is None:
            return
        del self.workers[worker.slot]
        unread = worker.sent is not None
        if worker.running is not None:
            self.may_fail.add(worker.running)
        self.happen(ev.Died(worker.slot, worker.generation, KILLED, unread))

    @rule(data=st.data())
    def late_news_changes_nothing(self, data):
        slot = data.draw(st.integers(0, self.machine.policy.max_workers - 1))
        before = dict(self.resolved)
        for event in (ev.Ready(slot, 0), ev.Finished(slot, 0, 1), ev.Died(slot, 0, KILLED)):
            assert self.machine.decide(event, self.now) == []
        assert self.resolved == before

    @running
    @rule(data=st.data())
    def worker_speaks_out_of_turn(self, data):
        worker = self.pick(data, lambda w: w.ready and w.spawned and not w.killed)
        if worker is not None:
            self.happen(ev.Ready(worker.slot, worker.generation))
            if self.machine.slots[worker.slot].state is not State.STOPPING:
                assert worker.killed

    # ---- always --------------------------------------------------------------------------------------------

    @invariant()
    def a_task_is_in_one_place(self):
        queued, running = set(self.machine.queue), set(self.machine.running)
        assert not queued & running
        assert not (queued | running) & set(self.resolved)
        assert queued | running | set(self.resolved) == self.accepted
        assert not queued & self.read

    @invariant()
    def an_idle_worker_and_a_waiting_task_never_coexist(self):
        if self.machine.phase in (Phase.OPEN, Phase.DRAINING):
            idle = any(slot.state is State.IDLE for slot in self.machine.slots)
            assert not (idle and self.machine.queue)

    def teardown(self):
        """Let the world go well from here: the pool must close, with every task resolved."""
        if self.machine is None:
            return
        if not self.closed:
            self.happen(ev.ShutdownAsked())
        for _ in range(1000):
            if self.closed:
                break
            self.now += 50.0
            self.happen(ev.Tick())
            if self.template == "starting":
                self.template = "up"
                self.happen(ev.TemplateUp())
            elif self.template == "stopping":
                self.template_dies_now()
            for worker in list(self.workers.values()):
                self.step(worker)
        assert self.closed, f"the pool did not close: {self.machine.phase} {self.machine.slots}"
        assert set(self.resolved) == self.accepted

    def template_dies_now(self):
        self.template = "down"
        for worker in list(self.workers.values()):
            if not worker.spawned:
                del self.workers[worker.slot]
        self.happen(ev.TemplateLost("asked"))

    def step(self, worker):
        if self.workers.get(worker.slot) is not worker:
            return
        if not worker.spawned:
            worker.spawned = True
            self.happen(ev.Spawned(worker.slot, worker.generation, 1))
        elif worker.killed:
            self.bury(worker)
        elif worker.sent is not None:
            worker.running, worker.sent = worker.sent, None
            self.read.add(worker.running)
        elif worker.running is not None:
            task, worker.running = worker.running, None
            self.written.add(task)
            self.happen(ev.Finished(worker.slot, worker.generation, task))
        elif not worker.ready:
            worker.ready = True
            self.happen(ev.Ready(worker.slot, worker.generation))
        elif worker.told_to_leave:
            del self.workers[worker.slot]
            self.happen(ev.Died(worker.slot, worker.generation, ExitStatus.from_wait_status(0)))


World.TestCase.settings = settings(
    max_examples=300,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestPromises = World.TestCase
