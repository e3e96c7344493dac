"""What is done inside the workers of nested pools. Importable, so that every start method finds it."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import Any

from tests.hosts.programs import tasks
from tests.hosts.programs.contender import ProcessPoolExecutor

SUM = sum(2 * number for number in range(20))
# Seconds. What hangs is told from here. Where the standard pool hangs that is plain, and each hang costs this time.
PATIENCE = 5.0 if os.environ["PIDFDPOOL_CONTENDER"] == "standard" else 20.0

shared = ProcessPoolExecutor(2)  # whoever uses it, and then has workers forked, has them inherit it
_own: dict[int, Any] = {}  # by pid, so that nobody takes an inherited one for his own


class Workers:
    """Two worker processes of somebody's, or four threads.

    call(function, *arguments) has a call done by one of them and returns a function that waits for the result.
    """

    def __init__(self, call: Callable[..., Callable[[float], Any]], end: Callable[[], object]) -> None:
        self.call = call
        self.end = end  # without waiting for what is being done, as far as that kind of workers can


@contextmanager
def workers(kind: str, method: str = "fork") -> Iterator[Workers]:
    """Have workers, and shut them down in the way that waits for them."""
    context = multiprocessing.get_context(method)
    if kind == "multiprocessing.Pool":
        with context.Pool(2) as pool:
            yield Workers(lambda function, *arguments: pool.apply_async(function, arguments).get, pool.terminate)
            pool.close()
            pool.join()
    elif kind == "multiprocessing.Process":
        yield Workers(
            lambda function, *arguments: _in_a_process(context, function, arguments),
            lambda: [process.terminate() for process in multiprocessing.active_children()],
        )
    else:
        executor = {
            "ProcessPoolExecutor": lambda: concurrent.futures.ProcessPoolExecutor(2, mp_context=context),
            "threads": lambda: concurrent.futures.ThreadPoolExecutor(4),
            "the same pool": lambda: ProcessPoolExecutor(2),
        }[kind]()
        with executor:
            yield Workers(
                lambda function, *arguments: executor.submit(function, *arguments).result,
                lambda: executor.shutdown(wait=False),
            )


def _in_a_process(context: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Callable[[float], Any]:
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(writer, function, arguments))
    process.start()
    writer.close()

    def get(seconds: float) -> Any:
        if not reader.poll(seconds):
            raise TimeoutError
        result = reader.recv()
        process.join(seconds)
        if process.exitcode != 0:
            raise RuntimeError(f"the process ends with {process.exitcode}")
        if isinstance(result, Exception):
            raise result
        return result

    return get


def _report(writer: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        result = function(*arguments)
    except Exception as error:
        result = error
    writer.send(result)
    writer.close()


# ---- what the workers do ---------------------------------------------------------------------------------------


def own_pool() -> Any:
    """Return this process's pool, which is made when it is first asked for."""
    if os.getpid() not in _own:
        _own[os.getpid()] = ProcessPoolExecutor(2)
    return _own[os.getpid()]


def total(pool: Any) -> int:
    return sum(pool.map(tasks.double, range(20)))


def make_and_use() -> int:
    with ProcessPoolExecutor(2) as pool:
        return total(pool)


def use_shared() -> int:
    return total(shared)


def use_others(kind: str, method: str) -> int:
    with workers(kind, method) as others:
        return sum(get(PATIENCE) for get in [others.call(tasks.double, number) for number in range(20)])


def survive_a_crash() -> int:
    """Lose a worker of this process's own pool, and use the pool again."""
    pool = own_pool()
    try:
        pool.submit(tasks.die, signal.SIGKILL).result(PATIENCE)
    except BrokenProcessPool:
        return total(pool)
    raise AssertionError("the crash is not told")


def go_down(levels: int) -> list[int]:
    """Return the pids of a chain of workers, each of which is the host of the next."""
    if not levels:
        return [os.getpid()]
    with ProcessPoolExecutor(1) as pool:
        return [os.getpid(), *pool.submit(go_down, levels - 1).result(PATIENCE)]


def hold_on(levels: int, path: str) -> None:
    """Have the last of a chain of workers write its pid to the path, and sleep."""
    if levels:
        own_pool().submit(hold_on, levels - 1, path).result()
    else:
        tasks.touch_and_sleep(path, 600)


def stay_at_work(path: str) -> None:
    """Write this process's pid beside the path, and wait for a task of its own pool's that does not end."""
    with open(f"{path}.outer", "w") as file:
        file.write(str(os.getpid()))
    hold_on(1, path)


def leave_work(path: str) -> int:
    """Leave tasks in this process's own pool that will take a moment."""
    for number in range(4):
        own_pool().submit(write_late, f"{path}{number}")
    return os.getpid()


def write_late(path: str) -> None:
    time.sleep(0.1)
    with open(path, "w") as file:
        file.write("done")


def written(path: str) -> int:
    """Return the pid that was written to the path; 0: not yet."""
    with suppress(FileNotFoundError), open(path) as file:
        return int(file.read() or 0)
    return 0
