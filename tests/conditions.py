"""Waiting for conditions, and finding processes: what tests use instead of sleeping and hoping."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

MARK = "PIDFDPOOL_TEST_RUN"
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


_borne: list[mmap.mmap] = []


def bear_mark(mark: str) -> None:
    """Have this process be known as one of the run `mark`, and what it starts or forks as well.

    What is executed has it in its environment, and what is only forked in its memory: its /proc/PID/environ is what
    this process began with, and all processes that pytest-xdist starts begin with the same.
    """
    os.environ[MARK] = mark
    descriptor = os.memfd_create(f"{MARK}={mark}")
    os.truncate(descriptor, mmap.PAGESIZE)
    _borne.append(mmap.mmap(descriptor, mmap.PAGESIZE))
    os.close(descriptor)


def eventually(condition: Callable[[], Any], what: str | Callable[[], str], seconds: float = 30.0) -> Any:
    """Return the condition's first true value; fail the test if there is none in time.

    `what` says what was waited for. It may be a function that also tells what was there in the end.

    Only who fails waits for that long; on a machine with much else to do, whatever is to come may take ten times as
    long as usual.
    """
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        value = condition()
        if value:
            return value
        now = time.monotonic()
        if now > deadline:
            told = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {seconds:g} s: {told}; last value {value!r}")
        # A look at all processes takes milliseconds, and what is waited for needs the processors, too.
        time.sleep(min(max(0.005, 3 * (now - began)), 0.05))


def come_to(look: Callable[[], Any], part: Callable[[Any], Any], expected: object) -> Any:
    """Look until this part of what is seen is as expected, and return all that is seen then."""
    seen = None

    def is_there() -> bool:
        nonlocal seen
        seen = look()
        return bool(part(seen) == expected)

    eventually(is_there, lambda: f"{expected} are there; there are {part(seen)}")
    return seen


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def is_alive(pid: int) -> bool:
    """Return whether the process exists and is not a zombie."""
    stat = _read(f"/proc/{pid}/stat")
    return bool(stat) and stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def is_zombie(pid: int) -> bool:
    stat = _read(f"/proc/{pid}/stat")
    return bool(stat) and stat.rpartition(b")")[2].split()[0] == b"Z"


def is_stopped(pid: int) -> bool:
    """Return whether a signal has stopped the process."""
    stat = _read(f"/proc/{pid}/stat")
    return bool(stat) and stat.rpartition(b")")[2].split()[0] == b"T"


def processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def children(pid: int) -> list[int]:
    """Return the living and dead children of a process."""
    found = []
    for other in processes():
        stat = _read(f"/proc/{other}/stat")
        if stat and int(stat.rpartition(b")")[2].split()[1]) == pid:
            found.append(other)
    return found


def processes_of_this_run(mark: str | None = None, among: Collection[int] | None = None) -> list[int]:
    """Return the living processes of this test run, but for the one that runs the tests.

    They carry its mark in their environment, or one that `marked` derived from it; or are named by the pool and have
    its mark in their memory. mark: only those with this one. among: look at no others.
    """
    wanted = f"{MARK}={mark or os.environ[MARK]}".encode()
    found = []
    for pid in processes() if among is None else among:
        if pid == os.getpid() or not is_alive(pid):
            continue
        environment = _read(f"/proc/{pid}/environ")
        marks = [item for item in environment.split(b"\0") if item.startswith(wanted)]
        if wanted in marks or (mark is None and (marks or _is_forked(pid, wanted))):
            found.append(pid)
    return found


def _is_forked(pid: int, wanted: bytes) -> bool:
    named = _read(f"/proc/{pid}/comm").startswith(b"pidfd-")
    return named and b"memfd:" + wanted in _read(f"/proc/{pid}/maps")


def open_descriptors(pid: int | str = "self") -> dict[int, str]:
    """Return the process's descriptors and what they lead to, but for the one that libffi keeps of its own library.

    From version 3.8 on it opens that when it is first used, in whatever test or process that happens.
    """
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue  # that of the directory itself
        if "/libffi.so" not in target:
            found[int(name)] = target
    return found


def describe(pid: int) -> str:
    command = _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace")
    return f"{pid} ({_read(f'/proc/{pid}/comm').decode().strip()}) {command[:120]}"


def run_python(code: str, *arguments: str, timeout: float = 50.0, **options: Any) -> subprocess.CompletedProcess:
    """Run a script in a process of its own and return what came of it."""
    options.setdefault("stdin", subprocess.DEVNULL)
    environment = {**os.environ, "PYTHONPATH": ROOT, **options.pop("env", {})}
    command = [sys.executable, *options.pop("flags", ()), "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=environment, check=False, **options
    )


def start_python(code: str, *arguments: str, **options: Any) -> subprocess.Popen:
    """Start a script in a process of its own, with pipes to its standard output and error."""
    environment = {**os.environ, "PYTHONPATH": ROOT, **options.pop("env", {})}
    options.setdefault("stdin", subprocess.DEVNULL)
    options.setdefault("stderr", subprocess.PIPE)
    command = [sys.executable, *options.pop("flags", ()), "-c", textwrap.dedent(code), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, **options)


def marked(name: str) -> dict[str, str]:
    """Return an environment by which a host's processes can be told from those of other tests."""
    return {MARK: f"{os.environ[MARK]}-{name}-{time.monotonic_ns()}"}


def _switches() -> list[bytes]:
    """Return how often each of the other threads went to sleep so far: a waiter for the GIL does every 5 ms."""
    others = [thread for thread in os.listdir("/proc/self/task") if thread != str(threading.get_native_id())]
    lines = [line for thread in others for line in _read(f"/proc/self/task/{thread}/status").splitlines()]
    return [line for line in lines if b"ctxt_switches" in line]


def _others_sleep() -> bool:
    before = _switches()
    time.sleep(0.02)
    return _switches() == before


@contextmanager
def held_by_another_thread(*locks: Any) -> Iterator[None]:
    """Have another thread hold these locks meanwhile."""
    taken, release = threading.Event(), threading.Event()

    def hold() -> None:
        with ExitStack() as held:
            for lock in locks:
                held.enter_context(lock)
            taken.set()
            release.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert taken.wait(30)
        yield
    finally:
        release.set()
        thread.join()


def unseen_fork() -> int:
    """Fork without a word to Python, as C code does.

    A child of such a fork can hang before it comes to any code of ours: if another thread waits for the interpreter's
    lock at that moment, the child's interpreter believes that it still does, and hands over to it when next it lets
    go of the lock. Nobody can mend that afterwards, so this forks while all other threads are asleep.
    """
    import ctypes

    eventually(_others_sleep, "all other threads sleep")
    # PyDLL keeps the GIL, as a program that has Python inside does when it forks.
    return ctypes.PyDLL(None).fork()


def in_forked_child(function: Callable[[], object], fork: Callable[[], int] = os.fork) -> str:
    """Run the function in a forked child; return what that reports: "ok" or a traceback. The child is bounded."""
    from pidfdpool.pidfd import Pidfd  # not with this module, which hosts of the standard pool load, too

    reader, writer = os.pipe()
    pid = fork()
    if not pid:
        import traceback

        try:
            os.close(reader)
            function()
            report = "ok"
        except BaseException:
            report = traceback.format_exc()
        os.write(writer, report.encode())
        os._exit(0)
    os.close(writer)
    with Pidfd.open(pid) as child, open(reader, "rb") as file:
        ended = child.wait(40)
        if not ended:
            child.send_signal(9)
        report = file.read().decode()
        child.exit_status()
    return report if ended else "it hangs"
