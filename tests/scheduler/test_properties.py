"""The promises about tasks, against every order of events that Hypothesis can think of, under every policy.

A model of the outside world (`world`) carries out the machine's actions and answers with events, late, out of order
between processes, or not at all because a process died. Whatever happens:

  1. every accepted task is resolved exactly once,
  2. a task that a worker has read is sent again only if its policy grants it, and never after it was to be killed,
  3. a result that its worker wrote is delivered, unless the future was told before that the worker is given up,
  4. a worker's death fails the task that it was running and no other, and is reported once,
  5. no more tasks run than the pool is large, and no more than twice as many workers are alive,
  6. what waits when all that waits is to be cancelled is sent to no worker any more,
  7. the pool closes, if it is asked to and the world goes on.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from pidfdpool.errors import HeartbeatLost, TaskTimeout, WorkerCrashed
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler import tasks
from pidfdpool.scheduler.policy import Policy
from pidfdpool.scheduler.states import Phase, State
from tests.scheduler.world import ENDED, KILLED, MUCH, World

SLICE = tasks.SLICE

maybe = st.sampled_from

OF_TASKS = {
    "timeout": maybe([None, 1.0, 5.0, 5.0]),
    "grace": maybe([None, 0.0, 0.5]),
    "deadline": maybe([None, 0.5, 10.0]),
    "retries": maybe([2, 1, 0]),
    "retry_on": maybe(
        [
            WorkerCrashed,
            (TaskTimeout, HeartbeatLost),
            ValueError,
            Exception,
            (WorkerCrashed, TaskTimeout, HeartbeatLost, ValueError),
        ]
    ),
    "retry_backoff": maybe([0.0, 0.1, 3.0]),
    "poison_after": maybe([None, 1, 2]),
    "priority": maybe([-1, 0, 5]),
    "heartbeat_timeout": maybe([None, 1.0, 4.0]),
}
OF_THE_POOL = {
    "max_tasks_per_child": maybe([None, 1, 2]),
    "max_memory_per_child": maybe([None, 500]),
    "hard_memory_per_child": maybe([None, 700]),
    "max_age": maybe([None, 2.0, 20.0]),
    "min_workers": maybe([0, 1]),
    "idle_timeout": maybe([None, 0.0, 3.0]),
    "start_timeout": maybe([None, 3.0]),
    "spawn_timeout": maybe([2.0, 30.0]),
    "stop_grace": maybe([0.0, 10.0]),
    "young_age": maybe([0.0, 1.0]),
    "on_crash": maybe(["isolate", "isolate", "break"]),
}
OFTEN = ("timeout", "retries", "retry_on")  # said in every example, as most of the machine hangs on them
task_options = st.fixed_dictionaries({}, optional=OF_TASKS)
pool_options = st.fixed_dictionaries(
    {"max_workers": st.integers(1, 3), **{name: OF_TASKS[name] for name in OFTEN}},
    optional={name: kinds for name, kinds in {**OF_TASKS, **OF_THE_POOL}.items() if name not in OFTEN},
)


def unborn(w):
    return w.pid is None


def starting(w):
    return w.works and not w.ready


def about_to_read(w):
    return w.works and w.running is None and w.channel and not w.outdated


def at_work(w):
    return w.works and w.running is not None


def heard_of(w):
    return w.outbox


def working(w):
    return w.works


def free_to_leave(w):
    return w.works and (w.outdated or (w.told_to_leave and w.running is None and not w.channel))


def born(w):
    return w.pid is not None


def up(w):
    return w.ready and w.works and not w.outbox


def some(wanted):
    """Make a precondition: there are workers of this kind."""
    return precondition(
        lambda self: self.world and not self.world.closed and any(map(wanted, self.world.workers.values()))
    )


class Drive(RuleBasedStateMachine):
    """Everything around the machine, driven by Hypothesis."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None  # made by `begin`

    @initialize(options=pool_options, pace=maybe([None, 0.0001, 0.006]), at_once=maybe([1, 3, SLICE]))
    def begin(self, options, pace, at_once):
        tasks.SLICE = at_once
        self.world = World(Policy(**options), pace)
        self.machine = self.world.machine

    running = precondition(lambda self: self.world is not None and not self.world.closed)

    def pick(self, data, wanted):
        return data.draw(st.sampled_from([worker for worker in self.world.workers.values() if wanted(worker)]))

    # ---- what the caller does ------------------------------------------------------------------------------

    @running
    @rule(options=st.one_of(st.none(), task_options))
    def submit(self, options):
        if self.machine.phase is Phase.OPEN:
            self.world.submit(options)

    @running
    @rule(data=st.data(), kill=st.booleans())
    @precondition(lambda self: self.world.tasks)
    def cancel_or_kill(self, data, kill):
        number = data.draw(st.sampled_from(list(self.world.tasks)))
        task = self.world.tasks[number]
        if not task.begun:
            self.world.cancel(number)
        if kill and not task.resolved:
            task.kill_asked = True
            self.world.happen(ev.TaskKillRequested(number))

    @running
    @rule(many=st.integers(2, 12))
    def submit_many(self, many):
        for _ in range(many):
            self.submit(None)

    @running
    @rule(size=st.integers(1, 4))
    def resize(self, size):
        self.world.happen(ev.ResizeRequested(max(size, self.machine.policy.min_workers)))

    @running
    @rule(count=st.integers(1, 6))
    def prestart(self, count):
        self.world.happen(ev.PrestartRequested(count))

    @running
    @rule(cancel=st.booleans())
    @precondition(lambda self: len(self.world.tasks) > 4)
    def shut_down(self, cancel):
        if cancel:
            self.world.condemn()
        self.world.happen(ev.ShutdownRequested(cancel))

    @running
    @rule(signal=st.sampled_from([9, 15]))
    @precondition(lambda self: len(self.world.tasks) > 6)
    def kill_all(self, signal):
        self.world.killing = True
        self.world.condemn()
        self.world.happen(ev.KillRequested(signal))

    @running
    @rule(seconds=st.sampled_from([0.01, 0.3, 6.0, 40.0]))
    def time_passes(self, seconds):
        self.world.now += seconds
        self.world.happen(ev.Tick())

    @running
    @rule(rounds=st.integers(1, 8))
    def all_goes_well_for_a_while(self, rounds):
        for _ in range(rounds):
            self.world.go_on()

    @running
    @rule(times=st.integers(1, 3))
    def a_deadline_comes(self, times):
        for _ in range(times):
            at = self.machine.deadline()
            if at is None or self.world.closed:
                return
            self.world.now = max(self.world.now, at)
            self.world.at_once(ev.Tick())

    @running
    @rule(refuse=st.booleans())
    def next_send_goes_wrong(self, refuse):
        self.world.refuse_next, self.world.decline_next = refuse, not refuse

    # ---- what the template does ----------------------------------------------------------------------------

    @running
    @rule(works=st.integers(0, 5))
    @precondition(lambda self: self.world.template == "starting")
    def template_starts(self, works):
        self.world.template = "up" if works else "down"
        self.world.happen(ev.TemplateUp() if works else ev.TemplateLost("could not be started"))

    @running
    @rule()
    @precondition(lambda self: self.world.template == "up" and not self.machine.state.template_booted)
    def template_boots(self):
        self.world.happen(ev.TemplateBooted())

    @running
    @rule()
    @precondition(lambda self: self.world.template in ("up", "stuck", "stopping"))
    def template_dies(self):
        self.world.lose_template()
        self.world.happen(ev.TemplateLost("killed"))

    @running
    @rule()
    @precondition(lambda self: self.world.template in ("up", "starting") and len(self.world.tasks) > 6)
    def template_is_hopeless(self):
        self.world.lose_template()
        self.world.happen(ev.TemplateUnusable("its preload fails"))
        assert self.machine.phase not in (Phase.OPEN, Phase.DRAINING)

    @some(unborn)
    @rule(data=st.data(), works=st.integers(0, 5))
    @precondition(lambda self: self.world.template in ("up", "stopping"))
    def template_forks(self, data, works):
        worker = self.pick(data, unborn)
        if works:
            worker.pid = 1000 + worker.generation
            self.world.happen(ev.Spawned(worker.slot, worker.generation, worker.pid))
        else:
            del self.world.workers[worker.slot]
            self.world.happen(ev.SpawnFailed(worker.slot, worker.generation, "no more processes"))

    # ---- what workers do -----------------------------------------------------------------------------------

    @some(starting)
    @rule(data=st.data(), at_once=st.booleans())
    def worker_gets_ready(self, data, at_once):
        worker = self.pick(data, starting)
        worker.ready = True
        worker.outbox.append(ev.Ready(worker.slot, worker.generation))
        if at_once:
            self.world.hear(worker)

    @some(starting)
    @rule(data=st.data())
    def worker_cannot_be_initialized(self, data):
        worker = self.pick(data, starting)
        if len(self.world.tasks) > 6:
            self.world.happen(ev.InitializerFailed(worker.slot, worker.generation, "ValueError: no"))

    @some(about_to_read)
    @rule(data=st.data())
    def worker_reads(self, data):
        worker = self.pick(data, about_to_read)
        self.world.read(worker)

    @some(about_to_read)
    @rule(data=st.data(), at_once=st.booleans())
    def worker_lacks_the_script_for_the_next_task(self, data, at_once):
        worker = self.pick(data, about_to_read)
        if worker.ready and worker.tokens:
            self.world.find_outdated(worker)
            while at_once and worker.outbox and not self.world.closed:
                self.world.hear(worker)

    @some(at_work)
    @rule(data=st.data(), failed=st.booleans(), retryable=st.booleans(), at_once=st.booleans())
    def worker_finishes(self, data, failed, retryable, at_once):
        worker = self.pick(data, at_work)
        self.world.write_outcome(worker, failed, retryable)
        if at_once:
            while worker.outbox and not self.world.closed:
                self.world.hear(worker)

    @some(heard_of)
    @rule(data=st.data())
    def news_of_a_worker_arrives(self, data):
        worker = self.pick(data, heard_of)
        self.world.hear(worker)

    @some(working)
    @rule(data=st.data(), memory=st.sampled_from([0, 600, MUCH]), beats=st.booleans())
    def worker_lives_on(self, data, memory, beats):
        worker = self.pick(data, working)
        worker.memory = memory
        worker.last_beat = self.world.now if beats else worker.last_beat

    @some(working)
    @rule(data=st.data(), at_once=st.booleans())
    def worker_is_unhealthy(self, data, at_once):
        worker = self.pick(data, working)
        worker.outbox.append(ev.Unhealthy(worker.slot, worker.generation, "it said so"))
        if at_once:
            while worker.outbox and not self.world.closed:
                self.world.hear(worker)

    @some(free_to_leave)
    @rule(data=st.data())
    def worker_leaves(self, data):
        worker = self.pick(data, free_to_leave)
        self.world.bury(worker, ENDED)

    @some(born)
    @rule(data=st.data())
    def worker_dies(self, data):
        worker = self.pick(data, born)
        self.world.bury(worker)

    @rule(slot=st.integers(0, 3))
    @precondition(lambda self: self.world.tasks or self.world.closed)
    def late_news_changes_nothing(self, slot):
        self.world.at_once(ev.Tick())  # with any event at all, a task that was only enqueued may be sent ahead
        for event in (ev.Ready(slot, 0), ev.Finished(slot, 0, 1), ev.Died(slot, 0, KILLED)):
            assert self.machine.decide(event, self.world.now) == []

    @some(up)
    @rule(data=st.data())
    def worker_speaks_out_of_turn(self, data):
        worker = self.pick(data, up)
        if self.machine.slots[worker.slot].state is not State.STARTING:
            self.world.happen(ev.Ready(worker.slot, worker.generation))
            if self.machine.slots[worker.slot].state is not State.STOPPING:
                assert worker.gone

    # ---- the end -------------------------------------------------------------------------------------------

    def teardown(self):
        """Let the world go on, with no event but those it owes: the pool must close, with every task resolved."""
        if self.world is None:
            return
        world = self.world
        try:
            if not world.closed:
                world.happen(ev.ShutdownRequested())
            world.end()
        finally:
            tasks.SLICE = SLICE


Drive.TestCase.settings = settings(
    max_examples=300,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
# Half a minute of computing, which a busy machine does not grant in one.
TestPromises = pytest.mark.timeout(600)(Drive.TestCase)
