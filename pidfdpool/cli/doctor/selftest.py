"""The self-test: a real pool whose workers crash, hang and are killed, and a real host that is killed.

`run` is called by `doctor`, on the main thread; `be_host` runs in a process of its own, which is killed. It takes
about a second. Each step has a deadline, so that nothing hangs where something does not work.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from pidfdpool import PidfdPoolExecutor, TaskKilled, TaskTimeout, WorkerCrashed
from pidfdpool.cli.doctor.facts import Step
from pidfdpool.pidfd import Pidfd, PidfdError, capabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PATIENCE = 10.0  # seconds for what should take milliseconds
_TIMEOUT = 0.1
_LONG = 60.0
_HOST = "from pidfdpool.cli.doctor.selftest import be_host; be_host()"


def run() -> tuple[Step, ...]:
    """Try what a pool promises; return what happened."""
    host = _start_host()  # it starts while the other steps are taken
    try:
        with PidfdPoolExecutor(2) as pool:
            try:
                return (
                    _try("crash", lambda: _crash(pool)),
                    _try("timeout", lambda: _time_out(pool)),
                    _try("kill", lambda: _kill(pool)),
                    _try("host death", lambda: _kill_host(host)),
                )
            finally:
                pool.kill_workers()
    finally:
        if isinstance(host, subprocess.Popen):
            with host:
                host.kill()


def _try(name: str, step: Callable[[], str]) -> Step:
    began = time.perf_counter()
    try:
        observed, passed = step(), True
    except Exception as error:
        told = str(error) if isinstance(error, _Broken) else f"{type(error).__name__}: {error}"
        observed, passed = told, False
    return Step(name, passed, time.perf_counter() - began, observed)


class _Broken(Exception):
    """A promise did not hold; the text tells which, and what happened instead."""


def _crash(pool: PidfdPoolExecutor) -> str:
    lost = pool.submit(_end_by_sigkill)
    others = [pool.submit(_double, number) for number in range(10)]
    error = lost.exception(_PATIENCE)
    if not isinstance(error, WorkerCrashed):
        raise _Broken(f"a worker killed itself, and its task ended with {error!r}")
    if [future.result(_PATIENCE) for future in others] != [2 * number for number in range(10)]:
        raise _Broken("tasks beside it had wrong results")
    return f"a worker was {error.exit_status}; its task got WorkerCrashed, and 10 others their results"


def _time_out(pool: PidfdPoolExecutor) -> str:
    began = time.perf_counter()
    error = pool.options(timeout=_TIMEOUT, grace=0.05).submit(_spin, _LONG).exception(_PATIENCE)
    if not isinstance(error, TaskTimeout):
        raise _Broken(f"a task ran for too long, and ended with {error!r}")
    return f"a task that spins was stopped after {time.perf_counter() - began:.2f} s; its timeout was {_TIMEOUT} s"


def _kill(pool: PidfdPoolExecutor) -> str:
    future = pool.submit(_spin, _LONG)
    deadline = time.monotonic() + _PATIENCE
    while not future.running() and time.monotonic() < deadline:
        time.sleep(0.001)
    future.kill()
    error = future.exception(_PATIENCE)
    if not isinstance(error, TaskKilled):
        raise _Broken(f"a task was killed, and ended with {error!r}")
    if pool.submit(_double, 1).result(_PATIENCE) != 2:
        raise _Broken("the pool had a wrong result afterwards")
    return "a running task was killed, and the pool went on"


def _kill_host(host: subprocess.Popen[str] | OSError) -> str:
    if isinstance(host, OSError):
        what = "" if host.filename is None else f": {host.filename}"  # the interpreter, or /dev/null
        raise _Broken(f"no process can be started: {host.strerror}{what}")
    assert host.stdout is not None
    line = host.stdout.readline().split()  # at its end, if the host could not start its pool
    if len(line) != 2:
        raise _Broken("a host in a process of its own could not use a pool")
    pids = [int(pid) for pid in line]
    began = time.perf_counter()
    if not _end_with(host, pids):
        raise _Broken(
            f"the host was killed, and of its template and worker {pids} one was alive {_PATIENCE:g} s later"
        )
    return f"a host was killed; template and worker, which spun, were gone after {time.perf_counter() - began:.2f} s"


def _end_with(host: subprocess.Popen[str], pids: Sequence[int]) -> bool:
    """Kill the host; return whether the processes ended in time. While it lives, their numbers are not used again."""
    deadline = time.monotonic() + _PATIENCE
    with ExitStack() as stack:
        if capabilities().open:
            # They may go the moment after the host, and so are opened before.
            handles = [stack.enter_context(Pidfd.open(pid)) for pid in pids]
            host.kill()
            return all(handle.wait(max(0.0, deadline - time.monotonic())) for handle in handles)
        host.kill()
        while time.monotonic() < deadline:
            if not any(_exists(pid) for pid in pids):
                return True
            time.sleep(0.01)
    return False


def _exists(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def _start_host() -> subprocess.Popen[str] | OSError:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", _HOST],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
    except OSError as error:
        return error


def be_host() -> None:
    """Be a host whose worker spins; tell the pids of worker and template. In a process of its own."""
    with suppress(BrokenPipeError, PidfdError), PidfdPoolExecutor(1) as pool:
        pids = pool.submit(_tell_pids).result(_PATIENCE)
        future = pool.submit(_spin, _LONG)
        print(*pids, flush=True)
        future.exception(_LONG)


def _tell_pids() -> tuple[int, int]:
    return os.getpid(), os.getppid()


def _end_by_sigkill() -> None:
    signal.raise_signal(signal.SIGKILL)


def _double(number: int) -> int:
    return 2 * number


def _spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
