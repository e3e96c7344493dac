"""Trace files that are made up: event by event, or of a pool that is simulated."""

from __future__ import annotations

import heapq
import json
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

PID = 4242
FIRST_PID = 5000


class TraceFile:
    """Events of a trace. Times are in microseconds; a worker is named by its slot."""

    def __init__(self, **head: Any) -> None:
        told = {
            "format": 1, "version": "0.3.0", "python": "3.15.2", "started": 1_796_000_000.25, "max_workers": 2,
            "start_method": "exec", **head,
        }  # fmt: skip
        self.events: list[dict[str, Any]] = []
        self.add("M", 0, name="pidfdpool", args=told)
        self.add("M", 0, name="process_name", args={"name": "pidfdpool sample"})
        self.name(0, "pool")
        self.pids: dict[int, int] = {}  # of the workers in the slots
        self._next_pid = FIRST_PID
        self._number = 0

    def add(self, phase: str, track: int, ts: float = 0.0, **more: Any) -> dict[str, Any]:
        event = {"ph": phase, "pid": PID, "tid": track, "ts": round(ts, 3), **more}
        self.events.append(event)
        return event

    def name(self, track: int, name: str) -> None:
        self.add("M", track, name="thread_name", args={"name": name})

    def start(self, slot: int, begin: float, duration: float, **parts: tuple[float, float]) -> None:
        """Start a worker. parts: name -> (begin, duration)."""
        if slot not in self.pids:
            self.name(slot + 1, f"worker {slot}")
        self.pids[slot] = self._next_pid
        self._next_pid += 1
        told = {"worker_pid": self.pids[slot], "generation": self._next_pid - FIRST_PID}
        self.add("X", slot + 1, begin, dur=duration, cat="start", name="start", args=told)
        for name, (at, long) in parts.items():
            self.add("X", slot + 1, at, dur=long, cat="start", name=name, args=told)

    def task(
        self,
        slot: int,
        begin: float,
        duration: float,
        function: str = "jobs:work",
        *,
        queued: float = 50.0,
        number: int | None = None,
        attempt: int = 1,
        outcome: str = "done",
        flow: bool = True,
        **told: Any,
    ) -> int:
        """Run a task; return its number."""
        if number is None:
            self._number += 1
            number = self._number
        args = {
            "task": number, "attempt": attempt, "calls": 1, "queued_us": round(queued, 3), "request_bytes": 120,
            "result_bytes": 30, "outcome": outcome, "worker_pid": self.pids.get(slot), **told,
        }  # fmt: skip
        if flow and attempt == 1 and begin >= queued:
            arrow = {"cat": "flow", "name": "task", "id": number}
            self.add("X", 0, begin - queued, dur=0, cat="submit", name=function)
            self.add("s", 0, begin - queued, **arrow)
            self.add("t", slot + 1, begin, **arrow)
            self.add("f", 0, begin + duration + 20, bp="e", **arrow)
        self.add("X", slot + 1, begin, dur=round(duration, 3), cat="task", name=function, args=args)
        return number

    def idle(self, slot: int, begin: float, duration: float, queued: int = 0) -> None:
        self.add("X", slot + 1, begin, dur=duration, cat="idle", name="idle", args={"queued": queued})

    def death(self, slot: int, at: float, text: str = "", *, expected: bool = False, **told: Any) -> None:
        told = {"worker_pid": self.pids.get(slot), "expected": expected, **told}
        self.mark("death", at, slot + 1, text or f"worker {slot} ended", **told)

    def mark(self, kind: str, at: float, track: int = 0, name: str = "", **told: Any) -> None:
        self.add("i", track, at, cat=kind, name=name or kind, s="t" if track else "p", args=told)

    def counter(self, name: str, at: float, **values: float) -> None:
        self.add("C", 0, at, name=name, args=values)

    def memory(self, slot: int, at: float, size: float) -> None:
        self.add("C", 0, at, name="memory", args={f"worker {slot}": size})

    def lines(self) -> list[str]:
        texts = [json.dumps(event, separators=(",", ":")) for event in self.events]
        return ["[", *(f"{text}," for text in texts[:-1]), texts[-1], "]"]

    def write(self, path: Path) -> Path:
        path.write_text("\n".join(self.lines()) + "\n")
        return path


def simulated(tasks: int, workers: int = 4, seed: int = 1, *, tiny: bool = False, flow: bool = True) -> TraceFile:
    """Return the trace of a pool that runs that many tasks of five functions, and in which things go wrong.

    tiny: tasks of some 10 microseconds; otherwise of some 10 milliseconds. flow: with events of their submissions.
    """
    chance = random.Random(seed)
    trace = TraceFile(max_workers=workers)
    unit = 10.0 if tiny else 10_000.0
    ready: list[tuple[float, int]] = []
    for slot in range(workers):
        begin, duration = 800.0 * slot, 60_000.0 + chance.uniform(0, 20_000)
        trace.start(slot, begin, duration, initializer=(begin + duration - 18_000, 16_000))
        heapq.heappush(ready, (begin + duration, slot))
    functions = {
        "thumbnails:resize": (3.0, 0.5), "thumbnails:<lambda>": (0.6, 0.3), "library.index:Index.add": (1.0, 0.9),
        "json:loads": (0.15, 0.4), "report:render.<locals>.page": (12.0, 0.6),
    }  # fmt: skip
    memory = [40e6] * workers
    sampled = 0.0
    for each in range(tasks):
        at, slot = heapq.heappop(ready)
        name, (size, spread) = chance.choices(list(functions.items()), [6, 5, 5, 8, 1])[0]
        duration = unit * size * chance.lognormvariate(0, spread)
        gap = unit * chance.expovariate(4)
        if each % 400 == 399:  # the host did not submit for a while
            gap += 30 * unit
            trace.idle(slot, at, gap)
        begin = at + gap
        queued = min(begin, unit * chance.expovariate(0.1))
        told: dict[str, Any] = {}
        if name == "thumbnails:resize":
            told = {"request_bytes": chance.randrange(400_000), "result_bytes": chance.randrange(90_000)}
        outcome = "failed" if chance.random() < 0.01 else "done"
        if outcome == "failed":
            told["error"] = 'ValueError: <no image> & no "name"'
        memory[slot] += chance.uniform(-1e5, 3e5)
        crash = not tiny and each % 150 == 149
        if crash:
            outcome, told["error"] = "crashed", "WorkerCrashed: SIGKILL"
        number = trace.task(slot, begin, duration, name, queued=queued, outcome=outcome, flow=flow, **told)
        end = begin + duration
        if end - sampled > 10_000:
            sampled = end
            trace.counter("queue", end, queued=chance.randrange(40))
            trace.counter("busy", end, workers=chance.randrange(1, workers + 1))
            for other in range(workers):
                trace.memory(other, end, memory[other])
        if crash:
            text = f"worker {slot} (pid {trace.pids[slot]}) ended while it ran task {number} ({name}): SIGKILL"
            trace.death(slot, end, text, signal=9, reason="not asked to end", tasks=[number])
            trace.mark("retry", end + 100, 0, task=number, attempt=2, why="WorkerCrashed", delay=0.1)
            trace.start(slot, end + 200, 40_000)
            memory[slot] = 40e6
            end += 40_200
            trace.task(slot, end, duration, name, number=number, attempt=2, queued=100)
            end += duration
        heapq.heappush(ready, (end, slot))
    return trace
