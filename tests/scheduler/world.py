"""A model of everything around the machine: a template, workers, futures. It carries out actions and answers them.

It keeps books of its own about what became of each task, and objects to every action that breaks a promise. What
happens, and when, is decided by whoever drives it: `test_properties`.
"""

from __future__ import annotations

from collections import Counter

from pidfdpool.deaths import Cause
from pidfdpool.errors import HeartbeatLost, MemoryExceeded, TaskTimeout, WorkerCrashed
from pidfdpool.pidfd import ExitStatus
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.machine import Machine
from pidfdpool.scheduler.policy import Policy
from pidfdpool.scheduler.states import Phase, State
from pidfdpool.scheduler.timers import Timer

KILLED = ExitStatus.from_wait_status(9)
ENDED = ExitStatus.from_wait_status(0)
MUCH = 1000  # bytes that are too many under any limit that is drawn
ERRORS = {Cause.TIMEOUT: TaskTimeout, Cause.HEARTBEAT: HeartbeatLost, Cause.MEMORY: MemoryExceeded}


class FakeWorker:
    """A worker as the world sees it."""

    def __init__(self, slot: int, generation: int) -> None:
        self.slot, self.generation = slot, generation
        self.pid: int | None = None
        self.ready = False
        self.told_to_leave = False
        self.signals: list[int] = []
        self.gone = False  # SIGKILL, from whomever: it runs no code any more, though it may take long to end
        self.channel: list[int] = []  # tasks that were sent and not yet begun, those that were taken back included
        self.tokens = 0  # of these, so many may be begun
        self.running: int | None = None
        self.sent_at = 0.0
        self.last_beat: float | None = None
        self.last_call: float | None = None  # when it began one of the calls of a chunk
        self.memory = 0
        self.hung_up = False  # it can neither read nor write, and does not know
        self.outdated = False  # it has said so, begins nothing any more, and leaves
        self.outbox: list[ev.Event] = []  # written, not yet taken by the host

    @property
    def works(self) -> bool:
        return self.pid is not None and not self.gone and not self.hung_up

    @property
    def holds(self) -> int | None:
        """The task that is in it, and comes before the others."""
        if self.running is not None or not self.tokens:
            return self.running
        return self.channel[0]


class FakeTask:
    """What the world remembers of a task."""

    def __init__(self, policy: Policy, now: float) -> None:
        self.policy = policy
        self.submitted_at = now
        self.begun = False  # its future is running
        self.attempts = 1  # those that were granted
        self.deaths = 0
        self.read = False  # in the attempt that was granted last
        self.kill_asked = False
        self.condemned = False  # it waited when all that waited was to be cancelled
        self.resolved: str | None = None


class World:
    """The world, at some moment."""

    def __init__(self, policy: Policy, pace: float | None = None) -> None:
        self.policy = policy
        self.pace = pace  # seconds, what workers say of their tasks
        self.machine = Machine(policy)
        self.now = 0.0
        self.template = "down"  # down, starting, up, stuck, stopping
        self.workers: dict[int, FakeWorker] = {}
        self.tasks: dict[int, FakeTask] = {}
        self.killing = self.cancelling = self.closed = False
        self.refuse_next = self.decline_next = False
        self.most_busy = self.most_alive = 0
        self.declined: set[int] = set()  # and the machine has not heard of it
        self.event: ev.Event = ev.Tick()
        self.doing: list[do.Action] = []
        self.seen: Counter[object] = Counter()  # kinds of actions, causes of deaths

    # ---- happenings ----------------------------------------------------------------------------------------

    def happen(self, event: ev.Event) -> None:
        self.now += 0.001
        self.at_once(event)

    def at_once(self, event: ev.Event) -> None:
        events = [event]
        while events:
            self.event = events.pop(0)
            self.doing = self.machine.decide(self.event, self.now)
            if isinstance(self.event, ev.SendSkipped):
                self.declined.remove(self.event.task)
            for number, action in enumerate(self.doing):
                events += self.carry_out(action, self.doing[:number])
            if isinstance(self.event, ev.Died):
                assert sum(isinstance(action, do.ReportDeath) for action in self.doing) == 1
            self.check()

    def submit(self, options: dict | None, calls: int = 0) -> None:
        task = len(self.tasks) + 1
        policy = None if options is None else self.policy.refined(options)
        self.tasks[task] = FakeTask(policy or self.policy, self.now + 0.001)
        self.now += 0.001
        self.doing = []
        if policy is not None or not self.submit_the_short_way(task):
            self.at_once(ev.Submitted(task, policy, calls=calls))

    def submit_the_short_way(self, task: int) -> bool:
        if self.machine.enqueue(task):
            self.seen["enqueued"] += 1
        else:
            slot = self.machine.hand_over(task, self.now)
            if slot is None:
                return False
            self.seen["handed over"] += 1
            for event in self.carry_out(do.Send(slot.index, slot.generation, task), []):
                self.at_once(event)
        self.check()
        return True

    def cancel(self, number: int) -> None:
        """Cancel a task, by the short way if that is open."""
        if self.machine.cancel(number):
            self.seen["cancelled the short way"] += 1
            self.doing = []
            self.resolve(number, "cancelled")
            self.check()
        else:
            self.happen(ev.Cancelled(number))

    def condemn(self) -> None:
        """Note which tasks no worker may get any more, because what waits is to be cancelled."""
        self.cancelling = True
        for number in (*self.machine.queue, *self.machine.delayed):
            self.tasks[number].condemned = True

    def hear(self, worker: FakeWorker) -> None:
        """Take the next thing that a worker wrote."""
        count = self.hear_the_short_way(worker)
        if count:
            event: ev.Event = ev.Answered(worker.slot, worker.generation)
        else:
            event = worker.outbox.pop(0)
        task = self.tasks.get(getattr(event, "task", 0))
        owned = task is not None and self.machine.running.get(event.task) == worker.slot
        if not isinstance(event, ev.Answered) or self.machine.slots[worker.slot].state is State.BUSY:
            self.happen(event)
        else:
            self.seen["came to rest"] += 1
            self.doing = []
            self.check()
        if owned and not getattr(event, "failed", False) and not self.machine.broken:
            assert task.resolved == "delivered", "a result was lost"

    def hear_the_short_way(self, worker: FakeWorker) -> int:
        """Take what goes the short way of what was written; return how many outcomes those are."""
        answers = []
        for event in worker.outbox:
            if not isinstance(event, ev.Finished) or not event.seconds or event.failed or not event.task % 3:
                break
            answers.append((event.task, event.seconds))
        numbers, seconds = [task for task, _ in answers], sum(seconds for _, seconds in answers)
        count = self.machine.take_answers(worker.slot, worker.generation, numbers, seconds, self.now)
        assert 0 <= count <= len(answers)
        for task, _ in answers[:count]:
            assert self.tasks[task].read
            self.resolve(task, "delivered")
        del worker.outbox[:count]
        self.seen["short way"] += count
        self.seen["several at once"] += count > 1
        return count

    def bury(self, worker: FakeWorker, status: ExitStatus = KILLED) -> None:
        """End a worker: the host reads all that it wrote, and then that it ended."""
        worker.gone = True
        while worker.outbox and not self.closed:
            self.hear(worker)
        del self.workers[worker.slot]
        self.dead = worker
        self.happen(ev.Died(worker.slot, worker.generation, status, worker.tokens))

    def lose_template(self) -> None:
        self.template = "down"
        self.workers = {slot: worker for slot, worker in self.workers.items() if worker.pid is not None}
        for worker in self.workers.values():
            worker.gone = True

    def write_outcome(self, worker: FakeWorker, failed: bool, retryable: bool) -> None:
        number, worker.running = worker.running, None
        policy = self.tasks[number].policy
        again = failed and retryable and policy.retries_errors and issubclass(ValueError, policy.retry_on)
        place = worker.slot, worker.generation
        worker.outbox.append(ev.Finished(*place, number, failed, again, worker.memory, self.pace))

    def go_on(self) -> bool:
        """Let everything that the world owes happen, one thing each; return whether there was something."""
        moved = self.template in ("starting", "stuck", "stopping")
        if self.template == "starting":
            self.template = "up"
            self.happen(ev.TemplateUp())
        elif moved:
            self.lose_template()
            self.happen(ev.TemplateLost("it left"))
        for worker in list(self.workers.values()):
            if not self.closed and self.workers.get(worker.slot) is worker:
                moved = self.step(worker) or moved
        return moved

    def end(self) -> None:
        """Go on, with no event but those that are owed, until the pool is closed."""
        for _ in range(2000):
            if self.closed:
                break
            if not self.go_on():
                at = self.machine.deadline()
                if at is not None:
                    self.now = max(self.now, at)
                    self.at_once(ev.Tick())
        assert self.closed, f"the pool did not close: {self.machine.phase} {self.machine.slots}"
        assert all(task.resolved for task in self.tasks.values())

    def step(self, worker: FakeWorker) -> bool:
        """Have a worker do what it has to do next; return whether there was something."""
        if worker.pid is None:
            worker.pid = 1000 + worker.generation
            self.happen(ev.Spawned(worker.slot, worker.generation, worker.pid))
        elif worker.outbox:
            self.hear(worker)
        elif worker.gone:
            self.bury(worker)
        elif worker.hung_up:
            return False
        elif worker.running is not None:
            self.write_outcome(worker, failed=False, retryable=False)
        elif worker.outdated:
            self.bury(worker, ENDED)
        elif worker.channel:
            self.read(worker)
        elif not worker.ready:
            worker.ready = True
            worker.outbox.append(ev.Ready(worker.slot, worker.generation))
        elif worker.told_to_leave:
            self.bury(worker, ENDED)
        else:
            return False
        return True

    def read(self, worker: FakeWorker) -> None:
        """Begin the next task, or pass over those that were taken back."""
        if not worker.tokens:
            worker.outbox.append(ev.Dropped(worker.slot, worker.generation, len(worker.channel)))
            worker.channel.clear()
            return
        worker.tokens -= 1
        worker.running = worker.channel.pop(0)
        task = self.tasks[worker.running]
        assert not task.read, "an attempt runs twice"
        task.read = True

    def find_outdated(self, worker: FakeWorker) -> None:
        """Have a worker find that its next task needs the script, which it lacks."""
        self.seen["outdated"] += 1
        worker.outdated = True
        worker.outbox.append(ev.Outdated(worker.slot, worker.generation))

    # ---- carrying out actions ------------------------------------------------------------------------------

    def carry_out(self, action: do.Action, before: list[do.Action]) -> list[ev.Event]:
        assert not self.closed, f"{action} after Close"
        self.seen.update([type(action), getattr(action, "cause", None)])
        method = getattr(self, f"do_{type(action).__name__}")
        if not hasattr(action, "generation") or isinstance(action, (do.Spawn, do.ReportDeath)):
            return method(action, before) or []
        worker = self.workers[action.slot]
        assert worker.generation == action.generation
        return method(action, worker) or []

    def do_Spawn(self, action, _before):  # noqa: N802  (this one and those below are named as their actions)
        assert action.slot not in self.workers, "spawned into an occupied slot"
        assert self.template == "up"
        self.workers[action.slot] = FakeWorker(action.slot, action.generation)

    def do_Send(self, action, worker):  # noqa: N802
        task = self.tasks[action.task]
        assert worker.ready
        assert worker.running is None
        assert not worker.channel
        assert not any(isinstance(event, ev.Finished) for event in worker.outbox)
        assert not task.resolved
        assert not task.read, "an attempt that may have run was sent again"
        assert not task.kill_asked, "a task that was to be killed was sent again"
        assert not task.condemned, "a task that was to be cancelled was sent"
        assert action.attempt == task.attempts <= task.policy.retries + 1
        if self.decline_next and not task.begun:
            self.decline_next = False
            self.resolve(action.task, "cancelled")
            self.declined.add(action.task)
            return [ev.SendSkipped(action.slot, action.generation, action.task)]
        task.begun = True
        self.seen["third attempt"] += action.attempt == 3
        if self.refuse_next:
            self.refuse_next = False
            worker.gone = True
            return [ev.SendRefused(action.slot, action.generation, action.task)]
        worker.sent_at = self.now
        worker.channel.append(action.task)
        worker.tokens += 1
        return []

    def do_Prefetch(self, action, worker):  # noqa: N802
        assert len(worker.channel) == worker.tokens, "sent on to a worker that has some to drop"
        assert action.tasks
        for number in action.tasks:
            task = self.tasks[number]
            assert task.policy.sends_ahead
            assert not task.resolved
            assert not task.read
            assert not task.kill_asked
            assert not task.condemned
        worker.channel += action.tasks
        worker.tokens += len(action.tasks)

    def do_TakeBack(self, action, worker):  # noqa: N802
        count = min(action.count, worker.tokens)
        worker.tokens -= count
        self.seen["taken back"] += count
        return [ev.TakenBack(action.slot, action.generation, count)]

    def do_MarkBegun(self, action, worker):  # noqa: N802
        task = self.tasks[action.task]
        assert not task.resolved
        task.begun = True
        assert action.task in (worker.running, worker.holds) or worker.gone or worker.outbox

    def do_Stop(self, _action, worker):  # noqa: N802
        worker.told_to_leave = True

    def do_Signal(self, action, worker):  # noqa: N802
        if self.machine.slots[action.slot].cause is Cause.KILL and worker.running is not None:
            assert self.tasks[worker.running].kill_asked, "killed for a task that is not in it"
        worker.signals.append(action.signal)
        worker.gone = worker.gone or action.signal == 9

    def do_DumpStack(self, _action, worker):  # noqa: N802
        assert 15 in worker.signals

    def do_CheckHeartbeat(self, action, worker):  # noqa: N802
        late = worker.last_beat is None or worker.last_beat <= action.before
        return [ev.LastHeartbeat(action.slot, action.generation, worker.last_beat, late)]

    def do_CheckCall(self, action, worker):  # noqa: N802
        assert self.machine.tasks[action.chunk].calls
        late = worker.last_call is None or worker.last_call <= action.before
        return [ev.CallStarted(action.slot, action.generation, worker.last_call, late)]

    def do_ReadPublished(self, action, _worker):  # noqa: N802
        assert not self.tasks[action.task].resolved, "read too late"

    def do_CheckMemory(self, action, worker):  # noqa: N802
        return [ev.MemoryMeasured(action.slot, action.generation, worker.memory)]

    def do_ReportDeath(self, action, _before):  # noqa: N802
        assert isinstance(self.event, ev.Died), "reported, though nobody died"
        assert (action.slot, action.generation, action.pid) == (self.dead.slot, self.dead.generation, self.dead.pid)
        if action.task is not None:
            assert action.task == self.dead.holds
            task = self.tasks[action.task]
            assert action.attempt == task.attempts
            assert task.read or self.killing or action.cause in {*ERRORS, Cause.KILL}, "lost, though it never ran"

    def do_Deliver(self, action, _before):  # noqa: N802
        assert isinstance(self.event, ev.Finished)
        assert self.event.task == action.task
        if self.event.retryable:
            task = self.tasks[action.task]
            assert self.killing or task.kill_asked or task.attempts == task.policy.retries + 1
        self.resolve(action.task, "delivered")

    def do_Cancel(self, action, _before):  # noqa: N802
        assert not self.tasks[action.task].begun, "a future that runs cannot be cancelled"
        assert not self.tasks[action.task].read, "cancelled, though a worker has begun it"
        self.resolve(action.task, "cancelled")

    def do_Retry(self, action, before):  # noqa: N802
        task = self.tasks[action.task]
        assert not task.resolved
        assert not self.killing
        assert not task.kill_asked
        if isinstance(self.event, ev.Finished) and self.event.retryable:
            assert issubclass(ValueError, task.policy.retry_on)
        else:
            task.deaths += 1
            assert task.policy.poison_after is None or task.deaths < task.policy.poison_after
        if before and isinstance(before[-1], do.ReportDeath):
            assert before[-1].task == action.task
            assert issubclass(ERRORS.get(before[-1].cause, WorkerCrashed), task.policy.retry_on)
        task.attempts += 1
        task.read = False
        assert action.attempt == task.attempts <= task.policy.retries + 1

    def do_Fail(self, action, before):  # noqa: N802
        task, cause = self.tasks[action.task], action.cause
        if cause is Cause.SHUTDOWN:
            assert self.cancelling
            assert task.begun
        elif cause is Cause.KILL:
            assert task.kill_asked
        elif cause is Cause.CRASH:
            assert isinstance(self.event, (ev.Died, ev.Tick))
        else:
            assert self.within_rights(cause, task.policy)
        if isinstance(self.event, ev.Died) and cause is not Cause.SHUTDOWN:
            assert isinstance(before[-1], do.ReportDeath)
            assert before[-1].task == action.task, "a death failed a task that was not in the worker"
        self.resolve(action.task, "failed")

    def within_rights(self, cause: Cause, policy: Policy) -> bool:
        """Return whether a task may fail for this cause at all."""
        limits = {
            Cause.TIMEOUT: policy.timeout,
            Cause.HEARTBEAT: policy.heartbeat_timeout,
            Cause.MEMORY: policy.hard_memory_per_child,
        }
        return limits[cause] is not None

    def do_Expire(self, action, _before):  # noqa: N802
        task = self.tasks[action.task]
        assert task.policy.deadline is not None
        assert self.now >= task.submitted_at + task.policy.deadline
        assert not task.read
        assert task.attempts == 1
        self.resolve(action.task, "expired")

    def do_FailBroken(self, action, _before):  # noqa: N802
        assert self.machine.broken or self.machine.phase is not Phase.OPEN
        self.resolve(action.task, "broken")

    def do_StartTemplate(self, _action, _before):  # noqa: N802
        assert self.template == "down"
        self.template = "starting"

    def do_KillTemplate(self, _action, _before):  # noqa: N802
        assert self.template in ("up", "stopping")
        self.template = "stuck" if self.template == "up" else "stopping"

    def do_StopTemplate(self, _action, _before):  # noqa: N802
        assert self.template == "up"
        self.template = "stopping"

    def do_Close(self, _action, _before):  # noqa: N802
        assert not self.workers
        assert self.template == "down"
        assert all(task.resolved for task in self.tasks.values()), "closed with tasks unresolved"
        self.closed = True

    def resolve(self, number: int, how: str) -> None:
        task = self.tasks[number]
        assert not task.resolved, f"task {number} is {task.resolved}, and now {how}"
        task.resolved = how

    # ---- what holds after every decision -------------------------------------------------------------------

    def check(self) -> None:
        machine = self.machine
        queued, running = set(machine.queue), set(machine.running)
        assert not queued & running
        prefetched = set(machine.prefetched)
        assert not prefetched & (queued | running)
        places = [queued, running, prefetched, set(machine.delayed), set(machine.to_cancel)]
        assert set().union(*places) == set(machine.tasks)
        assert sum(map(len, places)) == len(machine.tasks), "a task is in two places"
        assert prefetched == {number for slot in machine.slots for number in slot.ahead}
        assert set(machine.tasks) <= set(self.tasks)
        done = {number for number, task in self.tasks.items() if task.resolved}
        unanswered = self.declined
        assert set(machine.tasks) - unanswered == set(self.tasks) - done - unanswered, "a task is lost"
        living = [slot for slot in machine.slots if slot.state is not State.DEAD]
        assert {slot.index for slot in living} == set(self.workers)
        assert machine.workforce.active == sum(slot.counted for slot in living)
        idle = [slot.index for slot in living if slot.state is State.IDLE]
        busy = [slot for slot in living if slot.state is State.BUSY]
        assert sorted(machine.workforce.idle) == idle
        if machine.phase in (Phase.OPEN, Phase.DRAINING):
            assert not (idle and machine.queue and len(busy) < machine.size), "a worker idles while a task waits"
        self.check_clocks()
        # After the pool was made smaller there may be more for a while, but never again as many.
        self.most_busy = max(machine.size, min(self.most_busy, len(busy)))
        self.most_alive = max(2 * machine.size, min(self.most_alive, len(living)))
        assert len(busy) <= self.most_busy
        assert len(living) <= self.most_alive

    def check_clocks(self) -> None:
        """No clock of a task goes on when the task is over: it would hit the worker's next one."""
        machine = self.machine
        for timer, whose in machine.timers._at:
            if timer in (Timer.DEADLINE, Timer.RETRY):
                assert whose in machine.tasks, f"{timer!r} of a task that is over"
            elif timer in (Timer.TIMEOUT, Timer.HEARTBEAT):
                task = machine.workforce.by_generation[whose].task
                assert task is not None, f"{timer!r} without a task"
                policy = self.tasks[task].policy
                limit = policy.timeout if timer is Timer.TIMEOUT else policy.heartbeat_timeout
                assert limit is not None, f"{timer!r} of a task that has no such limit"
