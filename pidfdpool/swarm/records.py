"""What users see of a swarm: states, and the records of what happened. Pure data; any thread; all can be pickled."""

from __future__ import annotations

import enum

from pidfdpool.pidfd import ExitStatus
from pidfdpool.records import dataclass, field


class Phase(enum.Enum):
    """The life of a swarm."""

    NEW = "NEW"  # not started
    RUNNING = "RUNNING"
    QUIET = "QUIET"  # as RUNNING, but nodes were asked to take no new work, and none is started again
    STOPPING = "STOPPING"
    ENDED = "ENDED"  # no process and no thread is left


class NodeState(enum.Enum):
    """The states of a node: those of its process, and those in which it has none."""

    WAITING = "WAITING"  # no process; one is to be started, perhaps after a pause
    STARTING = "STARTING"  # asked for; it has not reported that it is healthy
    HEALTHY = "HEALTHY"
    STOPPING = "STOPPING"  # it was told to stop
    KILLING = "KILLING"  # SIGKILL was sent to its process group
    DONE = "DONE"  # it ended with exit code 0, and is not started again
    GAVE_UP = "GAVE_UP"  # it died young too often, and is not started again
    STOPPED = "STOPPED"  # it ended as it was told to, and is not started again

    @property
    def has_process(self) -> bool:
        """Whether the node has a process, or one was asked for."""
        return self in (NodeState.STARTING, NodeState.HEALTHY, NodeState.STOPPING, NodeState.KILLING)

    @property
    def over(self) -> bool:
        """Whether the node has no process and gets none by itself."""
        return self in (NodeState.DONE, NodeState.GAVE_UP, NodeState.STOPPED)


class Reason(enum.Enum):
    """Why a node's process ended: what the swarm did to end it, if it did anything. The values are texts."""

    UNASKED = "not asked to end"
    UNHEALTHY = "it said that it is unhealthy"
    SILENT = "it did not report that it is healthy"
    START = "it did not become healthy in time after its start"
    MEMORY = "it took too much memory"
    AGE = "it was too old"
    RESTART = "a restart was asked for"
    RESIZE = "the swarm became smaller"
    SHUTDOWN = "the swarm stops"
    TEMPLATE = "the swarm's template ended"
    LOADING = "its target could not be loaded"

    @property
    def is_fault(self) -> bool:
        """Whether the node failed: neither the user nor a limit of age or memory had it end."""
        return self in (Reason.UNASKED, Reason.UNHEALTHY, Reason.SILENT, Reason.START, Reason.LOADING)


class EventKind(enum.Enum):
    """What has happened to a node."""

    STARTED = "started"  # its first process was forked
    RESTARTED = "restarted"  # a further process was forked
    HEALTHY = "healthy"  # the first report of a process that it is healthy
    UNHEALTHY = "unhealthy"  # it said that it is not; the detail says why
    SILENT = "silent"  # no report came in time
    OUTGROWN = "outgrown"  # it is over max_memory or max_age, and is replaced
    STOPPING = "stopping"  # it was told to stop
    KILLED = "killed"  # it did not stop in time, and got SIGKILL
    DIED = "died"  # its process has ended, in whatever way; `death` says how
    QUIETED = "quieted"  # it was asked to take no new work
    DONE = "done"  # it ended with exit code 0, and is not started again
    GAVE_UP = "gave up"  # it is not started again, because it died young too often
    START_FAILED = "start failed"  # no process could be forked for it; this is tried again


@dataclass(frozen=True, slots=True)
class NodeDeath:
    """How one process of a node ended. A field is None if it could not be observed.

    Attributes:
        node: the number of the node.
        attempt: of which attempt this was the process, from 1.
        pid: the process id that it had. By now another process may have that id.
        reason: what the swarm did to end it, a `Reason`; Reason.UNASKED: nothing.
        exit_status: how the process ended, a `pidfdpool.pidfd.ExitStatus`, which may be unknown.
        uptime: seconds from its fork until its death was noticed; 0.0 if it was never forked.
        was_healthy: whether it had reported that it is healthy.
        young: whether it failed before it was healthy, or soon after its start.
        detail: what it said itself: why it is unhealthy, or the exception that ended it.
        peak_rss: its largest resident memory, in bytes (wait4(2)).
        cpu_time: seconds of processor time that it used, including children that it waited for.
        stack: the Python stack of each thread, which it wrote when it was found to be silent, or when it had not
            stopped by the last step of stop_order.
        stderr: the last lines that it wrote to standard error, if the swarm captures that.
        oom_kills: the increase of the counter oom_kill of the host's cgroup since the swarm's start or the previous
            death, whichever was later.
        ended_at: when the death was noticed, in time.time()'s seconds.
    """

    node: int
    attempt: int
    pid: int | None
    reason: Reason
    exit_status: ExitStatus
    uptime: float
    was_healthy: bool
    young: bool = False
    detail: str = ""
    peak_rss: int | None = None
    cpu_time: float | None = None
    stack: str | None = None
    stderr: tuple[str, ...] = ()
    oom_kills: int | None = None
    ended_at: float = 0.0

    @property
    def expected(self) -> bool:
        """Whether the swarm ended the process in its normal operation, or the node had done its work."""
        return not self.reason.is_fault or (self.reason is Reason.UNASKED and self.exit_status.code == 0)

    def __str__(self) -> str:
        told = [
            f"node {self.node} (pid {self.pid}, attempt {self.attempt}) ended: {self.exit_status}",
            f"{self.uptime:.3g} s after its start",
        ]
        if self.peak_rss:
            told.append(f"its memory had peaked at {self.peak_rss / 1e6:.0f} MB")
        if self.reason is not Reason.UNASKED:
            told.append(f"ended by the swarm: {self.reason.value}")
        if self.detail:
            told.append(self.detail)
        if self.oom_kills:
            told.append(f"the cgroup's oom_kill counter rose by {self.oom_kills}")
        return ", ".join(told)


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """Something that has happened to a node.

    Attributes:
        kind: what, an `EventKind`.
        node: the number of the node, from 0.
        attempt: of the process that it happened to, from 1; 0: there was none yet.
        pid: that process, for messages; None: it is not known, or there was none.
        at: when, in time.time()'s seconds.
        detail: more about it, for people.
        reason: why, a `Reason`, with SILENT, OUTGROWN, STOPPING, KILLED and DIED.
        death: with DIED: how the process ended, a `NodeDeath`.
        history: with GAVE_UP: the last deaths, the latest last.
    """

    kind: EventKind
    node: int
    attempt: int
    pid: int | None
    at: float
    detail: str = ""
    reason: Reason | None = None
    death: NodeDeath | None = None
    history: tuple[NodeDeath, ...] = ()

    def __str__(self) -> str:
        if self.death is not None:
            return str(self.death)
        who = f"node {self.node}" if self.pid is None else f"node {self.node} (pid {self.pid})"
        why = f": {self.reason.value}" if self.reason is not None else ""
        detail = f"{', ' if why else ': '}{self.detail}" if self.detail else ""
        lines = [f"{who} {self.kind.value}{why}{detail}", *(f"  {death}" for death in self.history)]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What is known of a node at the moment.

    Attributes:
        id: its number, from 0. It stays the same over restarts.
        state: a `NodeState`.
        attempt: the number of its present or last process, from 1; 0: there was none.
        pid: its process, for messages; None: there is none, or it was not forked yet.
        uptime: seconds since its process was forked; None: there is none.
        reported: seconds since its last report that it is healthy; None: there was none.
        deaths: how many of its processes have ended, in whatever way.
        last_death: the last of these, a `NodeDeath`.
        starts_in: seconds until the next process is to be started, if it is WAITING; None: it waits for the template.
        replacing: whether another process of this node is starting beside this one (the option `overlap`).
        memory: its resident memory in bytes, when it was last measured: for max_memory, or for this status.
    """

    id: int
    state: NodeState
    attempt: int = 0
    pid: int | None = None
    uptime: float | None = None
    reported: float | None = None
    deaths: int = 0
    last_death: NodeDeath | None = None
    starts_in: float | None = None
    replacing: bool = False
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class SwarmStatus:
    """What is known of a swarm at the moment.

    Attributes:
        phase: a `Phase`.
        nodes: one `NodeStatus` for each node, by number.
        template_pid: the process from which nodes are forked, for messages; None: there is none now.
        restarting: whether a rolling restart is under way.
        turned: seconds since the supervisor's thread last went through its loop. It sleeps when nothing is to do;
            `Swarm.ping` tells whether it still answers.
        failure: why no node can be started any more; empty: they can.
    """

    phase: Phase
    nodes: tuple[NodeStatus, ...] = field(default_factory=tuple)
    template_pid: int | None = None
    restarting: bool = False
    turned: float | None = None
    failure: str = ""

    @property
    def healthy(self) -> int:
        """The number of nodes that are healthy."""
        return sum(node.state is NodeState.HEALTHY for node in self.nodes)

    @property
    def given_up(self) -> tuple[int, ...]:
        """The numbers of the nodes that were given up."""
        return tuple(node.id for node in self.nodes if node.state is NodeState.GAVE_UP)
