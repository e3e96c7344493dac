"""`python -m pidfdpool demo`: a demonstration for newcomers. It needs no other package.

Runs in the host, on its main thread. The host is hostile: it has a SIGCHLD handler that reaps every child that it can
get. A file of events is transformed twice, inline and in a pool, and halfway through a busy worker is killed. All
that is printed was observed in this run. Each promise is checked: if one does not hold, the report tells it, and the
exit code is 1.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pidfdpool import PidfdPoolExecutor, WorkerCrashed
from pidfdpool.cli import hostility, sample, usage
from pidfdpool.cli.streams import show
from pidfdpool.process import cpus

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from concurrent.futures import Executor, Future

_SEED = 20
_BLOCK = 100  # documents
_TRIES = 3  # of one block; one worker is killed on purpose, another may be killed by somebody else


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = "exit codes: 0 if every promise held, 1 if one did not"
    parser.add_argument("--documents", type=usage.count, default=20_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--workers", type=usage.workers, metavar="N", help="worker processes (default: one per CPU)")


@dataclass
class _Observations:
    """The observations of the pool."""

    output: bytes = b""
    seconds: float = 0.0
    victim: int | None = None
    crashes: list[WorkerCrashed] = field(default_factory=list)
    processes: int = 0  # while it ran


def run(arguments: argparse.Namespace) -> int:
    """Run the demonstration; return the exit code."""
    if not hostility.can_kill():
        _print("FAILED", "no signal can be sent through a pidfd here, so no worker can be killed as it should be")
        return 1
    usable = cpus.usable()
    workers = arguments.workers or usable
    reaper = hostility.ReapingHandler()
    descendants = hostility.Descendants()
    with tempfile.TemporaryDirectory(prefix="pidfdpool-demo-") as folder:
        events = Path(folder, "events.jsonl")
        with events.open("wb") as file:
            file.writelines(sample.generate(arguments.documents, _SEED))
        blocks = list(_blocks(events))
        _print("events", f"{arguments.documents} nested ones, {events.stat().st_size / 1e6:.1f} MB of JSON Lines")
        with reaper.installed(), descendants.marked():
            _print("host", "has a SIGCHLD handler now that reaps every child it can get: waitpid(-1) in a loop")
            began = time.perf_counter()
            inline = b"".join(map(sample.summarize_lines, blocks))
            inline_seconds = time.perf_counter() - began
            _print("inline", f"the same work in this process, for comparison: {inline_seconds:.2f} s")
            try:
                observed = _run_in_pool(blocks, workers, descendants, os.path.join(folder, "announcement"))
            except BrokenExecutor as error:
                _print("FAILED", f"the pool broke: {error}")
                return 1
            left = descendants.alive()
    documents_out = observed.output.count(b"\n")
    problems = _report(arguments.documents, documents_out, inline, observed, reaper, left)
    _report_speed(arguments.documents, inline_seconds, observed.seconds, workers, usable)
    for problem in problems:
        _print("FAILED", problem)
    if not problems:
        _print("so", "every check held")
    return 1 if problems else 0


def _blocks(events: Path) -> Iterator[bytes]:
    with events.open("rb") as file:
        lines = file.readlines()
    for start in range(0, len(lines), _BLOCK):
        yield b"".join(lines[start : start + _BLOCK])


def _run_in_pool(
    blocks: list[bytes], workers: int, descendants: hostility.Descendants, announcement: str
) -> _Observations:
    observed = _Observations()
    pipe = hostility.Announcement(announcement)
    began = time.perf_counter()
    try:
        with PidfdPoolExecutor(workers, preload=("pidfdpool.cli.hostility",)) as pool:
            middle = len(blocks) // 2
            futures = [
                pool.submit(hostility.work_until_killed, block, announcement)
                if number == middle
                else pool.submit(sample.summarize_lines, block)
                for number, block in enumerate(blocks)
            ]
            observed.victim = pipe.wait(futures[middle])
            if observed.victim is not None:
                # Now, because it is certain that a worker exists.
                observed.processes = len(descendants.alive())
                hostility.kill(observed.victim)
            observed.output = b"".join(
                _result(pool, block, future, observed.crashes) for block, future in zip(blocks, futures, strict=True)
            )
            observed.seconds = time.perf_counter() - began
    finally:
        pipe.close()
    return observed


def _result(pool: Executor, block: bytes, future: Future[bytes], crashes: list[WorkerCrashed]) -> bytes:
    """Return the block's result; submit it again if its worker died. A pool does not do that without `retries`."""
    for _ in range(_TRIES - 1):
        try:
            return future.result()
        except WorkerCrashed as crash:
            crashes.append(crash)
            future = pool.submit(sample.summarize_lines, block)
    return future.result()


def _report(
    documents: int,
    documents_out: int,
    inline: bytes,
    observed: _Observations,
    reaper: hostility.ReapingHandler,
    left: list[int],
) -> list[str]:
    """Print the observations; return the problems."""
    problems = []
    if observed.victim is not None:
        _print("killed", f"worker process {observed.victim}, busy in the middle of it: SIGKILL through its pidfd")
    for crash in observed.crashes:
        _print("reported", f"{type(crash).__name__}: {crash}")
    if observed.victim not in [crash.pid for crash in observed.crashes]:
        problems.append("the death of the killed worker was not reported")
    if observed.crashes:
        _print(
            "resubmitted",
            f"{len(observed.crashes)} of {-(-documents // _BLOCK)} blocks: what the dead worker had",
        )

    same = observed.output == inline
    _print(
        "documents",
        f"{documents} in, {documents_out} out; "
        f"{'byte for byte what' if same else 'NOT what'} the inline run made "
        f"(SHA-256 {hashlib.sha256(observed.output).hexdigest()[:16]}...)",
    )
    if documents_out != documents:
        problems.append(f"{documents} documents went in, {documents_out} came out")
    if not same:
        problems.append("the pool's output differs from the inline run's")

    _print("handler", f"saw {_children(reaper.seen)}")
    if reaper.seen:
        problems.append("the host's SIGCHLD handler was shown a child that is not the host's own")

    _print(
        "processes",
        f"{observed.processes} of the pool's while it ran, {len(left)} left after it{_listed(left)}",
    )
    if observed.processes == 0:
        problems.append("the pool's processes could not be found in /proc, so nobody knows what is left")
    if left:
        problems.append("processes were left behind")
    return problems


def _report_speed(documents: int, inline: float, pool: float, workers: int, usable: int) -> None:
    _print(
        "speed",
        f"inline {documents / inline:,.0f} documents/s, pool {documents / pool:,.0f} documents/s: "
        f"x {inline / pool:.2f} with {_number(workers, 'worker')} on {_number(usable, 'CPU')}, "
        "its start and the crash included",
    )


def _children(seen: list[tuple[int, int]]) -> str:
    if not seen:
        return "nothing: no child to reap"
    return ", ".join(f"process {pid} (exit code {os.waitstatus_to_exitcode(status)})" for pid, status in seen)


def _listed(pids: list[int]) -> str:
    return f": {', '.join(map(str, pids))}" if pids else ""


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _print(subject: str, what: str) -> None:
    show(f"{subject:<12} {what}")
