"""What is known of a worker's death: one record, the same for every death. Made in the host, by `loop`.

It holds what was observed and nothing that was guessed. It survives pickling, because errors carry it.
"""

from __future__ import annotations

import enum

from pidfdpool.pidfd import ExitStatus
from pidfdpool.records import dataclass, field


class Cause(enum.Enum):
    """Why a worker ended, as far as the pool had a part in it. The values are what people read."""

    CRASH = "not asked to end"
    TIMEOUT = "its task ran for too long"
    HEARTBEAT = "its task gave no heartbeat"
    MEMORY = "it took too much memory"
    KILL = "its task was to be killed"
    START = "it did not get ready in time"
    TEMPLATE = "its template ended"
    TASKS = "it had run its share of tasks"
    RETIRED = "it was over its limit of memory after a task"
    AGE = "it was too old"
    UNHEALTHY = "it said that it is unhealthy"
    IDLE = "it was idle for too long"
    RESIZE = "the pool became smaller"
    SHUTDOWN = "the pool shut down"
    BROKEN = "the pool broke"
    BABBLE = "something wrote into its channel that is no answer"
    HUNG_UP = "its channel was closed while it went on"
    REFUSED = "its channel took no task any more"
    SCRIPT = "it was forked before the script was run again, which a task needs"

    @property
    def unasked(self) -> bool:
        """Whether the pool had no part in it."""
        return self in (Cause.CRASH, Cause.REFUSED)

    @property
    def ordinary(self) -> bool:
        """Whether it belongs to the ordinary life of a pool: nothing went wrong."""
        return self in (Cause.TASKS, Cause.RETIRED, Cause.AGE, Cause.IDLE, Cause.RESIZE, Cause.SHUTDOWN, Cause.SCRIPT)


@dataclass(frozen=True, slots=True)
class Death:
    """One worker's death. Whatever could not be observed is None.

    Attributes:
        slot: the worker's slot, from 0.
        generation: counts the pool's workers; after 2**32 - 1 it begins anew.
        pid: the process id that it had. It is history: by now the number may name another process.
        cause: what part the pool had in it, a `Cause`; Cause.CRASH: none.
        exit_status: how the process ended, a `pidfdpool.pidfd.ExitStatus`; it may be explicitly unknown.
        uptime: seconds from the request for the worker to the notice of its death.
        tasks_done: tasks that it had finished.
        task: the task that was lost with it, as "module.qualname"; of calls of map that shared a task also which.
        task_id: that task's number, counted from 1.
        attempt: of that task, 1 for the first; 0 without a task.
        peak_rss: the largest resident memory that it had, in bytes (wait4(2)).
        cpu_time: seconds of processor time that it used, with children that it waited for.
        oom_kills: by how much the counter oom_kill of the host's cgroup rose since the pool looked last, which is at
            the pool's start and at each death.
        memory_events: the same for every counter of the cgroup's memory.events that rose.
        stderr: the last lines that it wrote to standard error, if the pool captures that. More of them if it crashed
            in native code, so that the Python stack is among them; without the pool's own frames.
        stack: the Python stack of each thread that it wrote when it was told to end, or None: the innermost frame
            first, the task's own frames only, with their lines of source where the host knows them.
        detail: what it said itself, where it asked to be replaced.
        ended_at: when the death was noticed, as time.time() tells it.
    """

    slot: int
    generation: int
    pid: int | None
    cause: Cause
    exit_status: ExitStatus
    uptime: float
    tasks_done: int
    task: str | None = None
    task_id: int | None = None
    attempt: int = 0
    peak_rss: int | None = None
    cpu_time: float | None = None
    oom_kills: int | None = None
    memory_events: dict[str, int] = field(default_factory=dict)
    stderr: tuple[str, ...] = ()
    stack: str | None = None
    detail: str = ""
    ended_at: float = 0.0

    @property
    def expected(self) -> bool:
        """Whether the pool ended the worker in the ordinary course of its life."""
        return self.cause.ordinary

    def __str__(self) -> str:
        during = f" while it ran task {self.task_id} ({self.task})" if self.task_id is not None else ""
        attempt = f", attempt {self.attempt}" if self.attempt > 1 else ""
        tasks = "1 task" if self.tasks_done == 1 else f"{self.tasks_done} tasks"
        told = [
            f"worker {self.slot} (pid {self.pid}) ended{during}{attempt}: {self.exit_status}",
            f"{self.uptime:.3g} s after its start and with {tasks} finished before",
        ]
        if self.peak_rss:
            told.append(f"its memory had peaked at {self.peak_rss / 1e6:.0f} MB")
        if not self.cause.unasked:
            told.append(f"ended by the pool: {self.cause.value}{f' ({self.detail})' if self.detail else ''}")
        if self.oom_kills:
            told.append(f"the cgroup's oom_kill counter rose by {self.oom_kills}")
        return ", ".join(told)

    def as_seen(self) -> str:
        """Return what was seen of its end: in the standard library's words, then what that does not know."""
        unknown = self.exit_status.returncode is None
        how = "its exit status is unknown" if unknown else f"with exit code {self.exit_status.returncode}"
        if self.cause.unasked:
            line = f"Process {self.pid} terminated abruptly{', and' if unknown else ''} {how}"
        else:
            line = f"Process {self.pid} was ended by the pool{', and' if unknown else ''} {how}"
        named = [str(self.exit_status)] if self.exit_status.signal is not None else []
        named += [] if self.cause.unasked else [self.cause.value]
        lines = [f"{line} ({', '.join(named)})" if named else line]
        if self.stack:
            lines += ["Its Python stack when it was told to end:", self.stack.rstrip()]
        if self.stderr:
            lines += ["The last lines that it wrote to standard error:", *self.stderr]
        return "\n".join(lines)

    def as_line(self) -> str:
        """Return the record as one line for a history."""
        attempt = f"attempt {self.attempt}: " if self.attempt else ""
        return f"{attempt}worker {self.slot} (pid {self.pid}) {self.exit_status} after {self.uptime:.3g} s"


def history(deaths: tuple[Death, ...], most: int = 5) -> str:
    """Return the last deaths as text, the latest last."""
    lines = [f"  {death.as_line()}" for death in deaths[-most:]]
    if len(deaths) > most:
        lines.insert(0, f"  ({len(deaths) - most} earlier ones)")
    return "\n".join(lines)
