"""What a pool looks like at one moment: frozen data, for people and for metrics.

Taking one costs a few microseconds per worker: a copy under the pool's lock, and two small files of proc(5) without
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidfdpool.records import dataclass
from pidfdpool.scheduler.states import State

if TYPE_CHECKING:
    from pidfdpool.loop.decisions import Decisions


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One worker at one moment. Whatever could not be read is None.

    Attributes:
        slot, generation, pid: which worker.
        state: "STARTING", "IDLE", "BUSY" or "STOPPING".
        task, task_id, attempt: what it runs, if it runs something.
        task_age: seconds since that was begun.
        tasks_done: tasks that it has finished.
        age: seconds since it was asked for.
        rss: resident memory in bytes.
        cpu_time: seconds of processor time that it used.
        retiring: why it is to be replaced, if it is.
    """

    slot: int
    generation: int
    pid: int | None
    state: str
    task: str | None
    task_id: int | None
    attempt: int
    task_age: float | None
    tasks_done: int
    age: float
    rss: int | None
    cpu_time: float | None
    retiring: str | None


@dataclass(frozen=True, slots=True)
class Stats:
    """A pool at one moment. What is counted is counted since its first submit.

    Attributes:
        state: "OPEN", "DRAINING", "CLOSING" or "CLOSED"; "IDLE" before the first submit.
        broken: why the pool is broken; None: it is not.
        size: workers at most; level: workers that it holds at the moment.
        starting, idle, busy, stopping: workers by state.
        submitted: accepted tasks; pending: those without an outcome, of which `running` run, `queued` wait for a
            worker and `delayed` for their next attempt.
        finished: tasks whose result or exception arrived; failed: those that were lost, killed or timed out;
            cancelled: those that were cancelled in time; retries: attempts beyond the first.
        deaths: workers that ended, for whatever reason; crashes: of these, the ones that the pool had no part in.
        restarts: workers that took the place of another.
        template_restarts: templates that took the place of another.
        segments: shared memory for large payloads that the pool holds at the moment; segment_bytes: its size.
    """

    state: str = "IDLE"
    broken: str | None = None
    size: int = 0
    level: int = 0
    starting: int = 0
    idle: int = 0
    busy: int = 0
    stopping: int = 0
    submitted: int = 0
    pending: int = 0
    running: int = 0
    queued: int = 0
    delayed: int = 0
    finished: int = 0
    failed: int = 0
    cancelled: int = 0
    retries: int = 0
    deaths: int = 0
    crashes: int = 0
    restarts: int = 0
    template_restarts: int = 0
    segments: int = 0
    segment_bytes: int = 0


def stats(core: Decisions) -> Stats:
    """Return the pool's numbers."""
    machine, resolver = core.machine, core.resolver
    with core.lock:
        return Stats(
            state=machine.phase.value,
            broken=machine.broken,
            size=machine.size,
            level=machine.level,
            starting=machine.counts[State.STARTING],
            idle=machine.counts[State.IDLE],
            busy=machine.counts[State.BUSY],
            stopping=machine.counts[State.STOPPING],
            submitted=core.submitted,
            pending=len(machine.tasks),
            running=len(machine.running),
            queued=len(machine.queue) + len(machine.to_cancel) + len(machine.prefetched),
            delayed=len(machine.delayed),
            finished=resolver.finished,
            failed=resolver.failed,
            cancelled=resolver.cancelled,
            retries=machine.retries,
            deaths=machine.deaths,
            crashes=resolver.crashes,
            restarts=machine.restarts,
            template_restarts=machine.template_restarts,
            segments=len(core.leases.arena),
            segment_bytes=core.leases.arena.used,
        )


def workers(core: Decisions, now: float) -> tuple[WorkerInfo, ...]:
    """Return the pool's workers, by slot. now: time.monotonic()."""
    found = []
    with core.lock:
        for slot in core.machine.slots:
            if slot.state is State.DEAD:
                continue
            task = core.tasks.get(slot.task) if slot.task is not None else None
            fields = {
                "slot": slot.index,
                "generation": slot.generation,
                "pid": slot.pid,
                "state": slot.state.value,
                "task": task.label if task is not None else None,
                "task_id": task.number if task is not None else None,
                "attempt": task.attempt if task is not None else 0,
                "task_age": now - slot.busy_since if task is not None else None,
                "tasks_done": slot.tasks_done,
                "age": now - slot.requested_at,
                "retiring": slot.retire_cause.value if slot.retire_cause is not None else None,
            }
            found.append((fields, core.workers.get(slot.index)))
    infos = []
    for fields, link in found:
        rss, cpu_time = (None, None) if link is None else link.usage_now()
        infos.append(WorkerInfo(**fields, rss=rss, cpu_time=cpu_time))
    return tuple(infos)
