"""Generators for the tests of streams. They are imported in workers."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time

from pidfdpool.transport import framing
from pidfdpool.worker import context


def count(most):
    yield from range(most)


def note(path, text):
    with open(path, "a") as file:
        file.write(text)


def count_for_ever(path):
    """Count, and note how far it came and that it was closed."""
    number = -1
    try:
        for number in itertools.count():
            yield number
    finally:
        note(path, f"closed at {number}\n")


def advance(path, most):
    """Write down each item before it is yielded."""
    for number in range(most):
        with open(path + ".new", "w") as file:
            file.write(str(number))
        os.replace(path + ".new", path)
        yield number


def pause_after(most, path):
    """Yield some items at once, then wait until a file is there."""
    yield from range(most)
    while not os.path.exists(path):
        time.sleep(0.005)
    yield "over"


def fail_after(most, error):
    yield from range(most)
    raise error


def die_after(most, path):
    """Yield some items at once, and die when a file is there."""
    yield from pause_after(most, path)
    os.kill(os.getpid(), signal.SIGKILL)
    yield "alive"


def hang():
    threading.Event().wait()


def hang_after(most):
    yield from range(most)
    threading.Event().wait()


def reuse_buffer(most):
    """Yield the same list each time, changed."""
    items = []
    for number in range(most):
        items.append(number)
        yield items


def blocks(count, size):
    for number in range(count):
        yield number, bytes([number % 256]) * size


def unpicklable_after(most):
    yield from range(most)
    yield threading.Lock()


class Unreadable:
    """Cannot be rebuilt."""

    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise LookupError("refused")


def unreadable_between(most):
    yield from range(most)
    yield Unreadable()
    yield "after"


def fork_after(most):
    """Fork, and go on in both processes."""
    yield from range(most)
    os.fork()
    yield os.getpid()
    yield os.getpid()


def pids(most):
    for _ in range(most):
        yield os.getpid()


def no_items():
    return 5


def threads_meanwhile(most):
    """Yield quickly, and then how many threads there are; the counter is that of the kernel."""
    yield from range(most)
    yield len(os.listdir("/proc/self/task"))


def thread_count():
    return len(os.listdir("/proc/self/task"))


def write_items():
    """Write what a stream would, into the worker's own pipe."""
    loop = context.loop()
    loop.send_items(framing.encode(framing.ITEMS, value=context.running_task(), buffers=[b"N."]))
    hang()


def write_items_and_yield(buffers):
    loop = context.loop()
    loop.send_items(framing.encode(framing.ITEMS, 1, 0, context.running_task(), buffers))
    yield "yielded"
