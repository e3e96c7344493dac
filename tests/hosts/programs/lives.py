"""What host programs about forks and exits share: tasks that leave a trace, and what is seen of forked children."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import re
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from decimal import Decimal

from tests.hosts.programs import tasks
from tests.hosts.programs.contender import ProcessPoolExecutor

# Seconds until something counts as hanging. The standard pool hangs often, and each time costs as much.
PATIENCE = 4.0 if os.environ["PIDFDPOOL_CONTENDER"] == "standard" else 20.0


def append(path: str, number: int, seconds: float = 0.0) -> int:
    """Write a number as a line of its own, after a while: a task that must be done exactly once."""
    time.sleep(seconds)
    line = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(line, f"{number}\n".encode())
    os.close(line)
    return number


def watch(pid: int) -> str:
    """Wait for a child and tell how it ended: "works" if with 0; one that does not end is killed."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            code = os.waitstatus_to_exitcode(status)
            if code == 0:
                return "works"
            return f"ends with exit status {code}" if code > 0 else f"is killed by {signal.Signals(-code).name}"
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "hangs"
        time.sleep(0.005)


def in_child(function: Callable[[], object]) -> str:
    """Run a function in a forked child and tell what became of it."""
    pid = os.fork()
    if pid:
        return watch(pid)
    status = 1
    try:
        function()
        status = 0
    finally:
        os._exit(status)


def use(pool: Executor) -> None:
    """Have the pool do something. Raises whatever comes of it."""
    assert list(pool.map(tasks.double, range(6))) == [0, 2, 4, 6, 8, 10]


def seen_of_parent(pool: Executor, pending: Sequence[Future[int]], path: str) -> str:
    """Tell whether a pool is "undisturbed": what was pending is done, exactly once, and it goes on."""
    try:
        results = [future.result(PATIENCE) for future in pending]
    except BaseException as error:
        return f"a pending task of the parent's fails: {type(error).__name__}"
    if results != list(range(len(pending))):
        return "a pending task of the parent's has a wrong result"
    try:
        if pool.submit(tasks.double, 21).result(PATIENCE) != 42:
            return "the parent's pool gives a wrong result"
    except BaseException as error:
        return f"the parent's pool does not go on: {type(error).__name__}"
    with open(path) as file:
        done = sorted(int(line) for line in file)
    if done != list(range(len(pending))):
        return "a task of the parent's was done twice, or never"
    return "undisturbed"


def in_threads(count: int, work: Callable[[], object]) -> Callable[[], None]:
    """Do something over and over in threads of the host, until the function that is returned is called."""
    over = threading.Event()

    def repeat() -> None:
        while not over.is_set():
            work()

    threads = [threading.Thread(target=repeat, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()

    def stop() -> None:
        over.set()
        for thread in threads:
            thread.join()

    return stop


arriving = threading.Event()


def _arrive() -> str:
    arriving.set()
    time.sleep(1.0)
    return "arrived"


class Slow:
    """Takes a while to be unpickled, and tells the host that it is being unpickled."""

    def __reduce__(self) -> tuple[Callable[[], str], tuple[()]]:
        return _arrive, ()


def write_line(stream_name: str, text: str) -> str:
    """Print to standard output or error, whatever object that is in this process."""
    print(text, file=getattr(sys, stream_name), flush=True)
    return text


def log(text: str) -> str:
    logging.getLogger().info(text)
    return text


def multiply(seed: int) -> float:
    """Multiply matrices that are large enough for BLAS to use its threads."""
    import numpy

    matrix = numpy.random.default_rng(seed).random((300, 300))
    return float((matrix @ matrix.T).trace())


def use_much_of_the_interpreter(number: int) -> int:
    """Take locks of many kinds: of malloc, of the resolver, of modules that have caches or state of their own."""
    blocks = [bytearray(1 << 14) for _ in range(200)]
    socket.getaddrinfo("localhost", 80)
    re.compile(f"a{number}b+[c-{random.choice('defg')}]").match("abc")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.warn("nobody reads this", stacklevel=1)
    Decimal(number).sqrt()
    time.strptime("2024-02-03", "%Y-%m-%d")
    return len(blocks)


def answer_of_slow_module() -> int:
    from tests.hosts.programs import slow_module

    return slow_module.answer()


def run_a_loop_of_its_own(seconds: float) -> str:
    """Run coroutines in a worker, whatever loop was running where it was forked."""
    return asyncio.run(asyncio.sleep(seconds, "slept"))


def start_once(work: Callable[..., object], *arguments: object) -> object:
    """Make a pool, have one task done, and shut the pool down: the same over and over makes rare accidents happen."""
    pool = ProcessPoolExecutor(1)
    try:
        result = pool.submit(work, *arguments).result(PATIENCE)
    except TimeoutError:
        # Not by sys.exit: that would wait for the task.
        print(json.dumps("a task hangs"), flush=True)
        os._exit(0)
    pool.shutdown()
    return result


def draw(path: str, workers: int) -> tuple[float, float]:
    """Return numbers of `random` and of numpy's global generator, when so many workers are at it."""
    import numpy

    with open(path, "w"):
        pass
    prefix, _, _ = path.rpartition("-")
    while not all(os.path.exists(f"{prefix}-{number}") for number in range(workers)):
        time.sleep(0.005)
    return random.random(), float(numpy.random.random())
