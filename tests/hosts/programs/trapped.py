"""What a host with a trap does with its pool, and how it says what it saw, whatever has become of its streams.

A host tells by a descriptor of its own, far above the standard streams: `tell` a value that the test reads, or
`observed` what went wrong, which ends the host at once, because an orderly end may hang.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NoReturn

from tests.hosts.programs import tasks
from tests.hosts.programs.contender import ProcessPoolExecutor

OURS = os.environ["PIDFDPOOL_CONTENDER"] != "standard"
SECONDS = 20.0 if OURS else 6.0  # after which a task hangs; a standard pool that hangs costs the test that long

_opened = os.open(os.environ["PIDFDPOOL_TOLD"], os.O_WRONLY | os.O_APPEND)
_told = fcntl.fcntl(_opened, fcntl.F_DUPFD_CLOEXEC, 20)
os.close(_opened)


def tell(value: Any) -> None:
    """Hand the test a value."""
    os.write(_told, json.dumps(value).encode() + b"\n")


def observed(what: str) -> NoReturn:
    """Say what was seen instead of what should have been, and end."""
    tell({"observed": what})
    os._exit(9)


def expect(condition: Any, what: str, details: object = None) -> None:
    """End with this observation unless the condition holds."""
    if not condition:
        observed(what if details is None else f"{what}\n{details!r}")


def result(future: Future[Any], hangs: str = "a task hangs") -> Any:
    """Return the future's result; if there is none in time, that is what was observed."""
    try:
        return future.result(timeout=SECONDS)
    except TimeoutError:
        if future.done():
            raise
        observed(hangs)


def compute(pool: Any, count: int = 20) -> None:
    """Have some real work done."""
    futures = [pool.submit(tasks.double, number) for number in range(count)]
    sums = sum(result(future) for future in futures)
    expect(sum(2 * number for number in range(count)) == sums, "a wrong result", sums)


def lose(pool: Any, function: Any, argument: int) -> BrokenProcessPool:
    """Have a worker end, and return the error that tells of it."""
    try:
        got = result(pool.submit(function, argument), "the future of a task whose worker died hangs")
    except BrokenProcessPool as error:
        return error
    observed(f"a task whose worker died returns {got!r}")


def use(workers: int = 2) -> None:
    """Use pools as hosts do: results, a worker that exits with 3, one that is killed, results again, the end.

    The standard pool is lost with its worker, everywhere, which is not what these cases are about; so the host makes
    another one, as it would have to. Ours goes on, and has told how the worker ended.
    """
    with ProcessPoolExecutor(workers) as pool:
        compute(pool)
        error = lose(pool, tasks.leave, 3)
        if OURS:
            expect(error.exit_status.code == 3, "another exit status", error)
            go_on(pool)
            return
    with ProcessPoolExecutor(workers) as pool:
        go_on(pool)


def go_on(pool: Any) -> None:
    """Use a pool, whatever happened to it before."""
    compute(pool)
    error = lose(pool, tasks.die, signal.SIGKILL)
    if OURS:
        expect(error.exit_status.signal == signal.SIGKILL, "another exit status", error)
        compute(pool)
