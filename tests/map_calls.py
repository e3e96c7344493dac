"""Functions that tests of maps have workers call, and one for their results. It loads little, for quick workers."""

from __future__ import annotations

import os
import signal
import threading
import time

import pidfdpool
from tests import calls


def taken(results):
    """Return the results that came, and the exception that came after them."""
    came = []
    try:
        came.extend(results)
    except Exception as error:
        return came, error
    return came, None


def make(path, number, at, how):
    """Note the call and its attempt; at one number, and in its first attempt, do something else as well."""
    task = pidfdpool.current_task()
    calls.append(path, f"{number} {task.attempt}")
    if number == at and task.attempt == 1:
        WAYS[how]()
    return number


def _segfault():
    import ctypes

    ctypes.string_at(0)


def _raise():
    raise LookupError("the first time")


def _hang_and_raise_at_sigterm():
    def handle(*_):
        raise LookupError("interrupted")

    signal.signal(signal.SIGTERM, handle)
    time.sleep(1000)


WAYS = {
    "os._exit": lambda: os._exit(5),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": _segfault,
    "hang": lambda: time.sleep(1000),
    "hang in native code": calls.hang_in_native_code,
    "raise at SIGTERM": _hang_and_raise_at_sigterm,
    "raise": _raise,
    "beat": lambda: [pidfdpool.heartbeat() or time.sleep(0.05) for _ in range(30)],
    "nothing": lambda: None,
}


def die_at_last(path, number, last):
    """Note the call and its attempt; in the first attempt of the last call, die when told to."""
    attempt = pidfdpool.current_task().attempt
    calls.append(path, f"{number} {attempt}")
    if number == last and attempt == 1:
        calls.wait_for(f"{path}.release")
        os._exit(5)
    return number


def die_slowly_at(number, at):
    time.sleep(0.0002)
    if number == at:
        os._exit(5)
    return number


def fail_or_die_at_first(number, failing, dying):
    """In its first attempt, fail where the number is a multiple of one of these, and die where it is of the other."""
    if pidfdpool.current_task().attempt == 1:
        if number % dying == 0:
            os._exit(5)
        if number % failing == 0:
            raise LookupError("the first time")
    return number


dying: list[int] = []  # in a worker: the call that has begun its end


def die_after(number, at):
    """Have the worker die a moment later, when the call has finished. It finishes no other call."""
    if dying:
        time.sleep(1000)
    if number == at:
        dying.append(number)
        threading.Timer(0.05, os._exit, (5,)).start()
    return number


class DiesElsewhere:
    """Ends every process that rebuilds it."""

    def __init__(self, process):
        self.process = process

    def __setstate__(self, state):
        if state["process"] != os.getpid():
            os._exit(5)


def note_fork_and_return(path, number, at):
    calls.append(path, f"{number} {os.getpid()}")
    if number == at:
        os.fork()
    return number


def scribble(number, at):
    """At one number, write over all that is published, and die."""
    from pidfdpool.transport import published
    from pidfdpool.worker import chunk

    if number == at:
        for offset in (8 * 2, 64, 64 + 40):
            os.pwrite(chunk.black_box_fd, os.urandom(40), published.OFFSET + offset)
        os._exit(5)
    return number


def sleep_at(number, at, seconds):
    if number >= at:
        time.sleep(seconds)
    return number


def tell(number):
    before = time.monotonic()
    return before, pidfdpool.current_task()


def tell_who(number):
    return os.getpid(), *tell(number)


def leak_at(number, at):
    held = []
    while number == at:
        held.append(b"x" * 10_000_000)
        time.sleep(0.01)
    return number


def die_at(number, at):
    if number == at:
        os._exit(5)
    return number


def large(number):
    return b"x" * 100_000 if number % 10 == 3 else number


def middling(number):
    return bytes([number % 256]) * 30_000


def one_that_does_not_pickle(number, at):
    return calls.Unpicklable() if number == at else number


def one_that_does_not_unpickle(number, at):
    return calls.Unloadable() if number == at else number


def pipe_at(number, at):
    if number % at:
        return number
    import multiprocessing

    read, write = multiprocessing.Pipe(duplex=False)
    write.send(number)
    return read


shared: list[int] = []


def remember(number):
    shared.append(number)
    return shared


def who(number):
    return os.getpid()


def unhealthy_at(number, at):
    if number == at:
        pidfdpool.unhealthy("as told")
    return os.getpid()
