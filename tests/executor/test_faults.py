"""The fault matrix: each fault in each place of a call, for each way to make calls and each way to start a pool.

Of every cell it is tested how that call ends, that no other call ends in another way because of it, and that the pool
goes on.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pidfdpool import PidfdPoolExecutor
from tests import calling_back
from tests.conditions import MARK, eventually, marked, processes_of_this_run, run_python
from tests.executor import faults

FAULTS = ("crash", "exit", "raise", "hang", "MemoryError", "broken __str__")
INTERFACES = ("submit", "map", "run", "amap")

# What becomes of the call; where there is one word, with all interfaces. The words are names of exceptions, and:
#   result    it has its result; where the fault is to hang, once that is over
#   host      the fault is the host's own, and its end: none of its processes is left
OUTCOMES = {
    # In the host, by who makes the call.
    "pickling the call": {
        "crash": "host",
        "exit": "SystemExit",
        "raise": "CallNotSendable",
        "hang": "result",
        "MemoryError": "MemoryError",
        "broken __str__": "Mute",
    },
    # In the worker.
    "unpickling the call": {
        "crash": "WorkerCrashed",
        "exit": "SystemExit",
        "raise": "ValueError",
        "hang": "TaskTimeout",
        "MemoryError": "MemoryError",
        "broken __str__": "Mute",
    },
    "running": {
        "crash": "WorkerCrashed",
        "exit": "SystemExit",
        "raise": "ValueError",
        "hang": "TaskTimeout",
        "MemoryError": "MemoryError",
        "broken __str__": "Mute",
    },
    "pickling the result": {
        "crash": "WorkerCrashed",
        "exit": "SystemExit",
        "raise": "ValueError",
        "hang": "TaskTimeout",
        "MemoryError": "MemoryError",
        "broken __str__": "Mute",
    },
    # In the host, by who reads the answer.
    "unpickling the result": {
        "crash": "host",
        "exit": "PayloadError",
        "raise": "PayloadError",
        "hang": "result",
        "MemoryError": "PayloadTooLarge",
        "broken __str__": "PayloadError",
    },
    # In the host: a callback of the future (submit), of the asyncio task (run), the iterable of calls (map, amap).
    # What a callback of a future raises is logged. asyncio ends its loop for SystemExit.
    "callback": {
        "crash": "host",
        "exit": ("result", "SystemExit", "SystemExit", "SystemExit"),
        "raise": ("result", "ValueError", "result", "ValueError"),
        "hang": "result",
        "MemoryError": ("result", "MemoryError", "result", "MemoryError"),
        "broken __str__": ("result", "Mute", "result", "Mute"),
    },
}
IN_HOST = ("pickling the call", "unpickling the result", "callback")


def expected(place, fault, interface):
    outcome = OUTCOMES[place][fault]
    return outcome if isinstance(outcome, str) else outcome[INTERFACES.index(interface)]


CELLS = [(place, fault, interface) for place in OUTCOMES for fault in FAULTS for interface in INTERFACES]


# ---- the interfaces: each makes a call with the fault among others, and returns its error and other results ----


def by_submit(pool, place, fault):
    told = []
    try:
        if place == "callback":
            host = os.getpid()
            future = calling_back.submit(pool, lambda _: faults.commit(fault, host))
        else:
            future = pool.submit(faults.call, faults.argument(place, fault))
        future.add_done_callback(told.append)
        error = future.exception(60)
    except SystemExit as raised:
        error = raised
    else:
        eventually(lambda: told == [future], "it calls back, once")
    return error, []


def by_map(pool, place, fault):
    results = []
    try:
        results.extend(pool.map(faults.call, calls(place, fault), timeout=60))
    except BaseException as error:
        return error, results
    return None, results


def by_run(pool, place, fault):
    async def main():
        async def faulty():
            return await pool.run(faults.call, 0 if place == "callback" else faults.argument(place, fault))

        async def caught():
            try:
                await asyncio.wait_for(faulty(), 60)
            except BaseException as error:
                return error
            return None

        others = [asyncio.ensure_future(pool.run(faults.call, number)) for number in (1, 2, 3)]
        if place == "callback":
            task = asyncio.ensure_future(faulty())
            host = os.getpid()
            task.add_done_callback(lambda _: faults.commit(fault, host))
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            await task
            await asyncio.sleep(0)
            error = None
        else:
            error = await caught()
        return error, await asyncio.gather(*others)

    try:
        error, results = asyncio.run(main())
    except SystemExit as raised:
        return raised, []
    assert results == [1, 2, 3]
    return error, []


def by_amap(pool, place, fault):
    async def main():
        results = []
        try:
            async for result in pool.amap(faults.call, calls(place, fault), timeout=60):
                results.append(result)  # noqa: PERF401  those before the fault are to be there
        except BaseException as error:
            return error, results
        return None, results

    return asyncio.run(main())


def calls(place, fault):
    yield 1
    yield 2
    if place == "callback":
        yield faults.commit(fault, os.getpid())
    else:
        yield faults.argument(place, fault)
    yield 3


BY = {"submit": by_submit, "map": by_map, "run": by_run, "amap": by_amap}


def problem(pool, cell):
    """Return what is wrong in a cell of the matrix, or None."""
    place, fault, interface = cell
    others = [pool.submit(faults.call, number) for number in range(4)]
    # Bounded by time where it would hang in a worker. In the host nothing but its own patience bounds it.
    hangs = fault == "hang"
    view = pool.options(timeout=2.0) if hangs and place not in IN_HOST else pool
    if hangs and place in IN_HOST:
        faults.STARTED.clear()
        faults.RELEASE.clear()
        releasing = threading.Thread(target=release, args=(pool, place))
        releasing.start()
    try:
        error, results = BY[interface](view, place, fault)
    finally:
        if hangs and place in IN_HOST:
            faults.RELEASE.set()
            releasing.join()
    outcome = "result" if error is None else type(error).__name__
    if outcome != expected(place, fault, interface):
        return f"{outcome} instead of {expected(place, fault, interface)}"
    wanted = [] if interface in ("submit", "run") else [1, 2, 0, 3] if error is None else [1, 2]
    if error is not None and (place == "callback" or (place == "pickling the call" and fault == "exit")):
        wanted = []  # map itself raised it
    if outcome == "WorkerCrashed":
        results = wanted = []  # those before it were in the same worker, as one task
    if results != wanted:
        return f"the results besides are {results}"
    others += [pool.submit(faults.call, number) for number in range(4, 8)]
    if [other.result(60) for other in others] != list(range(8)):
        return "another call was lost"
    return None


def release(pool, place):
    """Have what hangs in the host go on; before that make a call here, if it is another caller who hangs."""
    assert faults.STARTED.wait(60)
    if place == "pickling the call":
        assert pool.submit(faults.call, 1).result(60) == 1
    faults.RELEASE.set()


@pytest.mark.timeout(150)
def test_a_fault_is_that_of_one_call(way, caplog):
    caplog.set_level("CRITICAL")
    cells = [cell for cell in CELLS if expected(*cell) != "host"]
    waiting = [cell for cell in cells if cell[1] == "hang" and cell[0] not in IN_HOST]
    with PidfdPoolExecutor(4, mp_context=way) as pool:
        found = {cell: problem(pool, cell) for cell in cells if cell not in waiting}
        # Together, because each takes as long as its timeout.
        with ThreadPoolExecutor(len(waiting)) as threads:
            found |= dict(zip(waiting, threads.map(lambda cell: problem(pool, cell), waiting), strict=True))
        assert {cell: wrong for cell, wrong in found.items() if wrong} == {}
        assert pool.stats().pending == 0
        assert len(found) == 6 * 6 * 4 - 3 * 4


HOSTS = """
import os, sys
from pidfdpool import PidfdPoolExecutor
from tests.executor.test_faults import BY, CELLS, expected

way = sys.argv[1]
for place, fault, interface in CELLS:
    if expected(place, fault, interface) != "host":
        continue
    host = os.fork()
    if not host:
        BY[interface](PidfdPoolExecutor(1, mp_context=way), place, fault)
        os._exit(1)
    print(place, interface, os.waitstatus_to_exitcode(os.waitpid(host, 0)[1]), sep=": ", flush=True)
"""


@pytest.mark.timeout(150)
def test_a_host_that_crashes_leaves_nothing(way):
    environment = marked("faults")
    ran = run_python(HOSTS, way, env=environment, timeout=120)
    ends = [line.rpartition(": ")[2] for line in ran.stdout.splitlines()]
    assert ends == ["-9"] * 12, ran
    eventually(lambda: not processes_of_this_run(environment[MARK]), "all processes are gone")
