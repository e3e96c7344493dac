"""Figures of a swarm: `python -m benchmarks.swarms`. Each is a median; docs/swarm.md quotes them.

Not part of the comparison with other pools: none of these has nodes.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import time
from collections.abc import Callable

from pidfdpool.swarm import EventKind, Node, NodeEvent, Swarm

_loaded = b""


def load(megabytes: int = 500) -> None:
    """Take memory in the template, as a large model or table does."""
    global _loaded  # noqa: PLW0603  a preload stays
    _loaded = os.urandom(1 << 20) * megabytes


def serve(node: Node) -> None:
    """Report, and wait."""
    node.healthy()
    node.stopping.wait()


def fail(_node: Node) -> None:
    """Die at once."""
    os._exit(1)


def note_silence(node: Node) -> None:
    """Report once, and look at nothing any more."""
    node.healthy()
    time.sleep(1000)


class Watch:
    """Notes when what happens."""

    def __init__(self) -> None:
        self.events: list[tuple[float, NodeEvent]] = []

    def __call__(self, event: NodeEvent) -> None:
        """Note an event."""
        self.events.append((time.monotonic(), event))

    def count(self, kind: EventKind) -> int:
        """Return how many events of this kind there were."""
        return sum(event.kind is kind for _, event in self.events)

    def wait(self, kind: EventKind, count: int) -> float:
        """Wait for the event of this kind and number; return when it was."""
        while self.count(kind) < count:
            time.sleep(0.0005)
        return [at for at, event in self.events if event.kind is kind][count - 1]


def start_of(nodes: int) -> float:
    """Return the seconds from the start until all are healthy."""
    began = time.monotonic()
    with Swarm(serve, nodes) as swarm:
        swarm.wait_until_healthy()
        return time.monotonic() - began


def restart() -> list[float]:
    """Return the seconds from SIGKILL until the node is healthy again, without a pause, of 50 deaths."""
    watch, times = Watch(), []
    with Swarm(serve, restart_pause=0, intensity=None, on_event=watch) as swarm:
        swarm.wait_until_healthy()
        for number in range(2, 52):
            began = time.monotonic()
            swarm.signal(signal.SIGKILL)
            times.append(watch.wait(EventKind.HEALTHY, number) - began)
    return times


def silence(report_timeout: float = 0.5) -> list[float]:
    """Return the seconds from the end of report_timeout until a silent node was told to stop, of 10."""
    watch = Watch()
    options = {"restart_pause": 0, "intensity": None, "start_timeout": 60, "stop_timeout": 0.2}
    with Swarm(note_silence, report_timeout=report_timeout, on_event=watch, **options):
        watch.wait(EventKind.SILENT, 10)
    healthy = [at for at, event in watch.events if event.kind is EventKind.HEALTHY]
    silent = [at for at, event in watch.events if event.kind is EventKind.SILENT]
    return [end - began - report_timeout for began, end in zip(healthy, silent, strict=False)]


def restarts_per_second(seconds: float = 5.0) -> float:
    """Return how often a node that dies at once is started again, without a pause."""
    watch = Watch()
    with Swarm(fail, restart_pause=0, intensity=None, on_event=watch) as swarm:
        watch.wait(EventKind.DIED, 1)
        before = watch.count(EventKind.DIED)
        time.sleep(seconds)
        died = watch.count(EventKind.DIED) - before
        swarm.kill()
    return died / seconds


def memory(nodes: int = 8) -> tuple[float, float]:
    """Return the megabytes of all nodes and the template together (PSS), and what one node has for itself."""
    with Swarm(serve, nodes, preload=load) as swarm:
        swarm.wait_until_healthy()
        status = swarm.status()
        pids = [status.template_pid, *(node.pid for node in status.nodes)]
        pss = [_field(pid, "Pss") for pid in pids]
        own = [_field(pid, "Private_Dirty") for pid in pids[1:]]
    return sum(pss), statistics.median(own)


def _field(pid: int | None, name: str) -> float:
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(f"{name}:")) / 1024


def main() -> None:
    """Print all figures."""
    print(sys.version.split()[0], os.uname().release, os.cpu_count(), "CPUs, load", *os.getloadavg())

    def show(what: str, times: list[float]) -> None:
        print(
            f"{what}: {statistics.median(times) * 1000:.1f} ms ({min(times) * 1000:.1f} to {max(times) * 1000:.1f})"
        )

    figures: list[tuple[str, Callable[[], list[float]]]] = [
        ("start of 4 nodes until all are healthy", lambda: [start_of(4) for _ in range(10)]),
        ("SIGKILL until healthy again", restart),
        ("end of report_timeout until told to stop", silence),
    ]
    for what, measure in figures:
        show(what, measure())
    print(f"restarts of a node that dies at once: {restarts_per_second():.0f}/s")
    together, own = memory()
    print(f"8 nodes with 500 MB preloaded: {together:.0f} MB together, {own:.1f} MB each for itself")


if __name__ == "__main__":
    main()
