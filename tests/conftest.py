"""What holds for every test: when it is over, nothing of it is left."""

from __future__ import annotations

import ctypes  # noqa: F401  libffi 3.8 keeps a descriptor of its own open from then on
import gc
import os
import re
import signal
import threading
import uuid

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.transport import black_box
from pidfdpool.worker import context
from tests import calls, selection
from tests.conditions import bear_mark, describe, eventually, open_descriptors, processes, processes_of_this_run

bear_mark(uuid.uuid4().hex)


def _take_signals_that_are_ignored() -> None:
    """Have what the tests start begin with the default for SIGINT, SIGHUP and SIGQUIT, as if started at a terminal.

    nohup and shells (for jobs in the background) hand down that they are ignored. What has a handler here is at its
    default again behind an exec; and this process goes on being deaf to what it is to ignore.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # tests interrupt this process itself
    for number in (signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


_take_signals_that_are_ignored()


def _shared_memory() -> set[str]:
    """Return the names in /dev/shm, which is for every program on this machine."""
    return set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()


def _mapped_segments() -> int:
    with open("/proc/self/maps") as maps:
        return maps.read().count("memfd:pidfdpool-segment")


def _is_held_here(name: str) -> bool:
    """Return whether a process of this run has it open or mapped.

    Who made a file that nobody holds cannot be told; that the pool makes none is tested where nobody else can.
    """
    path = f"/dev/shm/{name}"
    for pid in (os.getpid(), *processes_of_this_run()):
        try:
            with open(f"/proc/{pid}/maps") as maps:
                if path in maps.read():
                    return True
            if any(os.readlink(link.path) == path for link in os.scandir(f"/proc/{pid}/fd")):
                return True
        except OSError:
            continue
    return False


def pytest_addoption(parser):
    parser.addoption(
        "--ways",
        choices=("both", "one"),
        default="both",
        help="run a test in both ways in which a template starts (default), or in one of them: its name says which",
    )
    parser.addoption(
        "--cases",
        choices=("all", "some"),
        default="all",
        help="run a test with all of its cases (default), or leave some out where there are many: tests/selection.py",
    )


def pytest_collection_modifyitems(config, items):
    """Leave out what was asked for; refuse names that differ between processes, for pytest-xdist."""
    left_out = selection.left_out(items, ways=config.getoption("ways"), cases=config.getoption("cases"))
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
    changing = [item.nodeid for item in items if re.search("0x[0-9a-f]{6}", item.nodeid)]
    if changing:
        raise pytest.UsageError(f"an address is in the name of {changing[0]}: give its parameters other ids")


def pytest_collection_finish():
    """Let collections pass over what pytest and the tests' modules hold: that is most of all."""
    _pass_over_what_is_there()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """Let them pass over what pytest keeps of the tests of a module, too.

    That is some 50 objects for each test. After 2,500 tests a collection would take 50 ms without this, and many
    tests have one.
    """
    result = yield
    if nextitem is None or nextitem.path != item.path:  # no fixture of a module holds anything any more
        _pass_over_what_is_there()
    return result


def _pass_over_what_is_there() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Fail the test if it leaves a process, a thread, a descriptor or shared memory behind."""
    yield from leftovers()


def leftovers(*, shared_memory: bool = True):
    """Look around, yield once, and fail the test if there is more than before. For fixtures."""
    threads = set(threading.enumerate())
    descriptors = open_descriptors()
    memory = _shared_memory()
    mapped = _mapped_segments()
    running = set(processes())
    yield

    def left() -> dict[str, object]:
        found: dict[str, object] = {
            # Only what is new is looked at: to read the environments of all, twice for each test, takes minutes.
            "processes": [describe(pid) for pid in processes_of_this_run(among=set(processes()) - running)],
            "threads": [thread.name for thread in threading.enumerate() if thread not in threads],
            "descriptors": {fd: target for fd, target in open_descriptors().items() if descriptors.get(fd) != target},
            "shared memory": {name for name in _shared_memory() - memory if _is_held_here(name)}
            if shared_memory
            else None,
            "mapped segments": max(0, _mapped_segments() - mapped),
            "a place as a worker": context.worker,  # with it, pools are made as they are in workers
        }
        return {what: items for what, items in found.items() if items}

    if not left():
        return
    gc.collect()  # a cycle may hold it; not after every test, because a collection takes longer than most of them
    try:
        eventually(lambda: not left(), "nothing is left of the test", seconds=20.0)
    except AssertionError:
        pytest.fail(f"left behind by the test: {left()}")


@pytest.fixture
def tracker_ends():
    """End multiprocessing's resource tracker after a test, which this process has because a worker needed it."""
    yield
    from multiprocessing import resource_tracker

    tracker = resource_tracker._resource_tracker
    if tracker._pid is not None:
        tracker._stop()
    elif tracker._fd is not None:
        os.close(tracker._fd)
        tracker._fd = None


@pytest.fixture
def box():
    """Give a new black box."""
    fd = black_box.create()
    yield fd
    os.close(fd)


@pytest.fixture(params=selection.WAYS)
def way(request):
    """Both ways in which a template comes into being."""
    return request.param


@pytest.fixture
def pool(way):
    """Give a pool of two workers that has been used."""
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        pool.submit(calls.double, 1).result()
        yield pool


@pytest.fixture
def sure_of_deaths(monkeypatch):
    """Have futures wait for the end of a worker that was killed; else they are told after 0.2 s without its death."""
    monkeypatch.setattr("pidfdpool.scheduler.limits.GIVE_UP_AFTER", 30.0)


@pytest.fixture
def held(pool, tmp_path):
    """Give a task that goes on until the file is touched."""
    path = str(tmp_path / "held")
    future = pool.submit(calls.run_until, path, f"{path}.release", "value")
    future.release = tmp_path / "held.release"
    eventually(lambda: os.path.exists(path), "it runs")
    yield future
    future.release.touch()
