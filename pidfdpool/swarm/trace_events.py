"""Turns the events of a swarm into the events of a trace. Pure: no clock, no file, no process.

Used by one thread at a time. The track of a node is its number + 1. Each process of a node is a span from its fork
until it is healthy ("start"), and one from there until it has ended ("node"). With `overlap` a process that is
replaced has that span only until its replacement is healthy, because spans of a track may not overlap.
docs/tracing.md describes all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidfdpool.swarm.records import EventKind, NodeState, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pidfdpool.executor.tracing.lines import EventLines
    from pidfdpool.swarm.records import NodeDeath, NodeEvent, NodeStatus

_CATEGORIES = {EventKind.DIED: "death", EventKind.KILLED: "kill", EventKind.OUTGROWN: "recycle"}  # as of workers


class _Life:
    """One process of a node."""

    __slots__ = ("forked_at", "healthy_at", "pid", "told")

    def __init__(self, pid: int | None, forked_at: float, healthy_at: float | None = None) -> None:
        self.pid, self.forked_at, self.healthy_at = pid, forked_at, healthy_at
        self.told = False  # its span is in the trace


class SwarmTraceEvents:
    """The events of one trace of a swarm. Times are in time.time()'s seconds."""

    def __init__(self, lines: EventLines, name: str, began_at: float) -> None:
        """name: that of the swarm. began_at: when the trace began."""
        self._lines, self._name, self._at = lines, name, began_at
        self._lives: dict[tuple[int, int], _Life] = {}  # by node and attempt
        self._named: set[int] = set()  # the nodes whose tracks have a name

    def present(self, nodes: Iterable[NodeStatus]) -> list[str]:
        """Take the nodes that are there when the trace begins."""
        lines = []
        for node in nodes:
            if node.state.has_process and node.pid is not None:
                healthy_at = None if node.state is NodeState.STARTING else self._at
                self._lives[node.id, node.attempt] = _Life(node.pid, self._at, healthy_at)
                lines += self._track(node.id)
        return lines

    def of(self, event: NodeEvent) -> list[str]:
        """Return what an event adds to the trace."""
        self._at = max(self._at, event.at)  # that clock may be set back
        lines, key, args = self._track(event.node), (event.node, event.attempt), self._args(event)
        if event.kind in (EventKind.STARTED, EventKind.RESTARTED):
            self._lives[key] = _Life(event.pid, self._at)
        elif event.kind is EventKind.HEALTHY:
            lines += self._become_healthy(key)
        elif event.death is not None:
            lines += self._end(key, event.death)
            args |= _how(event.death)
        name, cat = event.kind.value if event.death is None else str(event.death), _CATEGORIES.get(event.kind, "node")
        lines.append(self._lines.event("i", name, event.node + 1, self._at, cat=cat, s="t", args=args))
        return lines

    def finish(self, at: float) -> list[str]:
        """Return the spans of the processes that live on. at: when the trace ends."""
        self._at = max(self._at, at)
        return [line for key in list(self._lives) for line in self._end(key, None)]

    def dropped(self, count: int) -> str:
        """Return the event that says how many events are not in the trace."""
        return self._lines.event("i", "dropped", 0, self._at, cat="dropped", s="p", args={"count": count})

    def _track(self, node: int) -> list[str]:
        if node in self._named:
            return []
        self._named.add(node)
        return self._lines.track(node + 1, f"node {node}")

    def _args(self, event: NodeEvent) -> dict[str, object]:
        args: dict[str, object] = {"worker_pid": event.pid, "attempt": event.attempt}
        if event.reason is not None:
            args["why" if event.death is None else "reason"] = event.reason.value
        if event.detail:
            args["detail"] = event.detail
        return args

    def _become_healthy(self, key: tuple[int, int]) -> list[str]:
        life = self._lives.get(key)
        if life is None or life.healthy_at is not None:
            return []
        lines = [self._start(key, life)]
        life.healthy_at = self._at
        for other, replaced in self._lives.items():
            if other[0] == key[0] and replaced is not life and not replaced.told and replaced.healthy_at is not None:
                lines.append(self._span(other, replaced, None))
        return lines

    def _end(self, key: tuple[int, int], death: NodeDeath | None) -> list[str]:
        life = self._lives.pop(key, None)
        if life is None or life.told:
            return []
        return [self._start(key, life) if life.healthy_at is None else self._span(key, life, death)]

    def _start(self, key: tuple[int, int], life: _Life) -> str:
        args: dict[str, object] = {"worker_pid": life.pid, "generation": key[1]}
        return self._event("start", "start", key[0], life.forked_at, args)

    def _span(self, key: tuple[int, int], life: _Life, death: NodeDeath | None) -> str:
        life.told = True
        args: dict[str, object] = {
            "task": key[0],
            "attempt": key[1],
            "worker_pid": life.pid,
            "outcome": _outcome(death),
        }
        if death is not None and args["outcome"] != "done":
            args["error"] = death.detail or str(death.exit_status)
        return self._event("node", self._name, key[0], life.healthy_at or life.forked_at, args)

    def _event(self, cat: str, name: str, node: int, since: float, args: dict[str, object]) -> str:
        dur = round((self._at - since) * 1e6, 3)
        return self._lines.event("X", name, node + 1, since, cat=cat, dur=dur, args=args)


def _outcome(death: NodeDeath | None) -> str:
    """Return what became of a process, in the words of tasks. None: it lives on, or was replaced."""
    if death is None or death.expected:
        return "done"
    if death.reason in (Reason.SILENT, Reason.START):
        return "timed out"
    return "failed" if death.exit_status.signal is None else "crashed"


def _how(death: NodeDeath) -> dict[str, object]:
    status = death.exit_status
    ended = {"exit_code": status.returncode} if status.signal is None else {"signal": int(status.signal)}
    return {**ended, "expected": death.expected}
