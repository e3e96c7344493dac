"""Running a host program and saying what was seen of it.

Every case runs its host in a process of its own, with a bound on each wait, because the standard pool may hang, or
take the host down. What goes wrong is raised as `Observed`: its first line is what the page says in that pool's
column, so it tells what was seen, in a few words, and never what is supposed to be the reason.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tests.conditions import MARK, ROOT, is_alive, processes_of_this_run

CONTENDER = "PIDFDPOOL_CONTENDER"  # tells programs which executor to use; see programs/contender.py


class Observed(AssertionError):
    """What happened instead of what should have."""


def expect(condition: Any, observed: str, details: object = None) -> None:
    """Fail the case unless the condition holds. Details go beneath the first line, for whoever mends it."""
    if not condition:
        raise Observed(observed if details is None else f"{observed}\n{details}")


def within(seconds: float, condition: Callable[[], Any], observed: str, details: Callable[[], object] = str) -> Any:
    """Return the condition's first true value; fail the case if there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Observed(f"{observed}\nnot within {seconds:g} s; {details()}")
        time.sleep(0.01)
    return value


def environment(contender: str, **more: str) -> dict[str, str]:
    """Return what a host program finds in its environment."""
    return {**os.environ, "PYTHONPATH": ROOT, "PYTHONDONTWRITEBYTECODE": "1", CONTENDER: contender, **more}


@contextmanager
def host(
    contender: str, command: Sequence[str], *, env: dict[str, str] | None = None, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Start a program in a session of its own, with pipes to its output, and end it with the block.

    Whatever the program has started is ended, too; that is not what is being tested here.
    """
    options.setdefault("stdin", subprocess.DEVNULL)
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    options.setdefault("start_new_session", True)
    process = subprocess.Popen(command, text=True, env={**environment(contender), **(env or {})}, **options)
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    """Kill the program if it still runs, reap it, and close its pipes."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def python(code: str, *arguments: str, flags: Sequence[str] = ()) -> list[str]:
    """Return the command that runs a script under this interpreter."""
    return [sys.executable, *flags, "-c", textwrap.dedent(code), *arguments]


def run(
    contender: str,
    command: Sequence[str],
    *,
    seconds: float = 20.0,
    env: dict[str, str] | None = None,
    hangs: str = "the host hangs",
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return what came of it. One that does not end in time is killed: it hangs."""
    with host(contender, command, env=env, **options) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as expired:
            process.kill()
            raise Observed(f"{hangs}\nnot over within {seconds:g} s; output {expired.stdout!r}") from None
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def run_clean(contender: str, command: Sequence[str], **options: Any) -> str:
    """Run a program that must succeed and say nothing on standard error; return its output."""
    done = run(contender, command, **options)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no word why"]
        raise Observed(f"the host ends with {_status(done.returncode)}: {last[0]}\n{done.stdout}\n{done.stderr}")
    expect(not done.stderr, f"noise on standard error: {(done.stderr.strip().splitlines() or [''])[-1]}", done.stderr)
    return done.stdout


def _status(code: int) -> str:
    return f"exit status {code}" if code >= 0 else signal.Signals(-code).name


def expect_gone(pids: Sequence[int], observed: str = "processes are left", seconds: float = 3.0) -> None:
    """Fail the case unless every one of these processes ends in time."""
    within(seconds, lambda: not [pid for pid in pids if is_alive(pid)], observed, lambda: pids)


def expect_nothing_left(env: dict[str, str], seconds: float = 3.0) -> None:
    """Fail the case unless every process whose environment carries the mark (see conditions.marked) ends in time."""
    mark = env[MARK]
    within(
        seconds,
        lambda: not processes_of_this_run(mark),
        "processes are left",
        lambda: processes_of_this_run(mark),
    )
