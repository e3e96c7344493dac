"""Functions that tests have workers call."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any


def identify(_: object = None) -> tuple[int, int]:
    return os.getpid(), os.getppid()


def double(value):
    return value * 2


def sleep(seconds: float, value: object = None) -> object:
    time.sleep(seconds)
    return value


def die(number: int = signal.SIGKILL) -> None:
    signal.raise_signal(number)
    time.sleep(60)


def leave(code: int) -> None:
    os._exit(code)


def touch_and(path: str, then: str, seconds: float = 60.0) -> object:
    """Append this process's pid to a file, then do as told."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    if then == "spin":
        while True:
            pass
    if then == "sleep":
        time.sleep(seconds)
    if then == "regex":  # holds the GIL in native code for longer than anybody waits
        import re

        re.match(r"(a+)+$", "a" * 60 + "b")
    return path


def raise_it(error: BaseException) -> None:
    raise error


def exit_with(code: object) -> None:
    sys.exit(code)


class Unpicklable:
    def __reduce__(self):
        raise TypeError("this object does not pickle")


class Unloadable:
    """Pickles, and raises when it is rebuilt."""

    def __init__(self, error: str = "ValueError") -> None:
        self.error = error

    def __reduce__(self):
        return _refuse, (self.error,)


def _refuse(name: str):
    raise {"ValueError": ValueError, "SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}[name](
        "this object does not unpickle"
    )


class TwoArguments(Exception):
    """An exception of the common kind that pickles and then cannot be rebuilt."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def make(kind: str, *arguments):
    return globals()[kind](*arguments)


def raise_new(kind: str, *arguments):
    raise globals()[kind](*arguments)


class Thing:
    pass


def identity_of_new(_: object) -> Thing:
    return Thing()


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """Pickles by its attributes, which cannot be set when it is rebuilt."""

    number: int


@dataclasses.dataclass(frozen=True)
class FrozenWithReduce(Exception):
    number: int

    def __reduce__(self):
        return type(self), (self.number,)


# ---- supervised -------------------------------------------------------------------------------------------------


def note(path: str, what: object = None) -> None:
    """Write a file that is complete as soon as it exists; what: this process's pid, if nothing else is told."""
    part = f"{path}.{os.getpid()}"
    with open(part, "w") as file:
        file.write(str(os.getpid() if what is None else what))
    os.rename(part, path)


def append(path: str, what: object) -> None:
    """Append a line to a file, in one write."""
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(fd, f"{what}\n".encode())
    os.close(fd)


def wait_for(path: str, seconds: float = 90.0) -> None:
    """Return when the file exists."""
    deadline = time.monotonic() + seconds
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise AssertionError(f"nobody made {path}")
        time.sleep(0.002)


def call_when_gone(path: str, function: Callable[[], Any], seconds: float = 90.0) -> Any:
    """Call the function when the file does not exist any more."""
    deadline = time.monotonic() + seconds
    while os.path.exists(path):
        assert time.monotonic() < deadline, f"nobody removed {path}"
        time.sleep(0.002)
    return function()


def append_and_stay(log: str, release: str, number: int, held: int, failing: int | None = None) -> int:
    """Append which call this is to a file; then stay until it is released, or fail, or return the number.

    It takes too long for a chunk that the pool sizes to have two of them.
    """
    append(log, number)
    time.sleep(0.006)
    if number == held:
        wait_for(release)
    if number == failing:
        raise LookupError(number)
    return number


def run_until(started: str, release: str, value: object = None) -> object:
    """Say that this runs, and go on until it is let go."""
    note(started)
    wait_for(release)
    return value


def hang_in_python() -> None:
    while True:
        pass


def hang_in_native_code() -> None:
    import re

    re.match(r"(a+)+$", "a" * 40 + "b")  # holds the GIL


def hang_in_sleep() -> None:
    time.sleep(1000)


def hang_in_read() -> None:
    os.read(os.pipe()[0], 1)


def hang_and_ignore_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        pass


def hang_with_a_child(how: str, path: str) -> None:
    """Start a process that would outlive this one, tell both pids, and never come back."""
    import subprocess

    child = subprocess.Popen(["sleep", "1000"])
    note(path, f"{os.getpid()} {child.pid}")
    globals()[how]()


def double_or_hang(value: int, bad: int) -> int:
    if value == bad:
        hang_in_python()
    return value * 2


def on_sigterm(then: str, path: str) -> str:
    """Hang until SIGTERM comes, then return or raise."""

    class Told(Exception):
        pass

    def handle(number: int, frame: object) -> None:
        raise Told

    signal.signal(signal.SIGTERM, handle)
    note(path)
    try:
        hang_in_sleep()
    except Told:
        if then == "raise":
            raise ValueError("the task was interrupted") from None
    return "finished early"


def fail_until(path: str, attempts: int, how: str) -> int:
    """Fail in the first attempts, then return the number of this one; each is a line in the file."""
    from pidfdpool import current_task

    append(path, os.getpid())
    with open(path) as file:
        count = len(file.readlines())
    if count < attempts:
        if how == "crash":
            die()
        elif how == "hang":
            hang_in_python()
        raise {"ValueError": ValueError, "KeyError": KeyError}[how](f"attempt {count}")
    return current_task().attempt


def beat(seconds: float, value: object = None) -> object:
    """Run for so long and give a heartbeat now and then."""
    from pidfdpool import heartbeat

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        heartbeat()
        time.sleep(0.01)
    return value


_KEPT: list[bytearray] = []


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def leak(size: int) -> int:
    """Take memory and keep it."""
    _KEPT.append(bytearray(b"\1") * size)
    return os.getpid()


def options_as_arguments(timeout: object, retries: object, *, priority: object = None) -> tuple[object, ...]:
    return timeout, retries, priority


def write_to_stderr(lines: int, then: str = "return") -> None:
    for number in range(lines):
        os.write(2, f"line {number}\n".encode())
    if then == "die":
        die()


def beat_in_a_thread(seconds: float) -> int:
    import threading

    thread = threading.Thread(target=beat, args=(seconds,))
    thread.start()
    thread.join()
    return os.getpid()


def most_at_a_time(folder: str, seconds: float = 0.01) -> int:
    """Run for a moment; tell how many did at that moment, this one included."""
    me = f"{folder}/{os.getpid()}-{time.monotonic_ns()}"
    open(me, "w").close()
    count = len(os.listdir(folder))
    time.sleep(seconds)
    os.unlink(me)
    return count


def say_unhealthy(reason: str) -> int:
    from pidfdpool import unhealthy

    unhealthy(reason)
    return os.getpid()


def say_unhealthy_from_a_thread(reason: str) -> int:
    import threading

    thread = threading.Thread(target=say_unhealthy, args=(reason,))
    thread.start()
    thread.join()
    return os.getpid()


def say_unhealthy_later(reason: str) -> int:
    import threading

    timer = threading.Timer(0.1, say_unhealthy, (reason,))
    timer.daemon = True
    timer.start()
    return os.getpid()
