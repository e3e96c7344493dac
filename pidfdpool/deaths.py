"""The record of a worker's death. Made in the host, by `loop`, for every death.

It holds what was observed, and nothing that was guessed. It can be pickled, because errors carry it.
"""

from __future__ import annotations

import enum

from pidfdpool.pidfd import ExitStatus
from pidfdpool.records import dataclass, field


class Cause(enum.Enum):
    """Why a worker ended: what the pool did to end it, if it did anything. The values are texts for messages."""

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
        """Whether the pool did nothing to end the worker."""
        return self in (Cause.CRASH, Cause.REFUSED)

    @property
    def ordinary(self) -> bool:
        """Whether nothing went wrong: the pool ended the worker in its normal operation."""
        return self in (Cause.TASKS, Cause.RETIRED, Cause.AGE, Cause.IDLE, Cause.RESIZE, Cause.SHUTDOWN, Cause.SCRIPT)


@dataclass(frozen=True, slots=True)
class Death:
    """One worker's death. A field is None if it could not be observed.

    Attributes:
        slot: the worker's slot, from 0.
        generation: the number of the worker in its pool; after 2**32 - 1 it starts again.
        pid: the process id that it had. By now another process may have that id.
        cause: what the pool did to end it, a `Cause`; Cause.CRASH: nothing.
        exit_status: how the process ended, a `pidfdpool.pidfd.ExitStatus`, which may be unknown.
        uptime: seconds from the request for the worker until its death was noticed.
        tasks_done: tasks that it had finished.
        task: the task that it was running, as "module.qualname"; for calls of map in one task also which calls.
        task_id: that task's number, counted from 1.
        attempt: of that task, 1 for the first; 0 without a task.
        peak_rss: its largest resident memory, in bytes (wait4(2)), and not less than the pool had measured.
        cpu_time: seconds of processor time that it used, including children that it waited for.
        oom_kills: the increase of the counter oom_kill of the host's cgroup since the pool's start or the previous
            death, whichever was later.
        memory_events: the increase of every counter of the cgroup's memory.events that has increased, by name.
        stderr: the last lines that it wrote to standard error, if the pool captures that. If it crashed in native
            code there are more of them, so that the Python stack is among them, without the pool's own frames.
        stack: the Python stack of each thread, which it wrote when the pool ended it: the innermost frame first, only
            the task's own frames, with their source lines if the host has them.
        detail: the reason that it gave itself, if it asked to be replaced.
        ended_at: when the death was noticed, in time.time()'s seconds.
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
        """Whether the pool ended the worker in its normal operation."""
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
        """Return what was observed: in the standard library's words, then the stack and standard error."""
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
