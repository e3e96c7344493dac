"""What holds for every test: when it is over, nothing of it is left."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import uuid

import pytest

from tests.conditions import MARK, describe, eventually, processes, processes_of_this_run

os.environ[MARK] = uuid.uuid4().hex
# libffi 3.8 and newer keep a descriptor of their own library from then on, which is not to be blamed on a test.
ctypes.CFUNCTYPE(None)(lambda: None)


def _open_descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the directory's own
    return found


def _shared_memory() -> set[str]:
    """Return the names in /dev/shm but for semaphores: those are other programs', such as hosts that were killed."""
    names = os.listdir("/dev/shm") if os.path.isdir("/dev/shm") else []
    return {name for name in names if not name.startswith("sem.")}


def _mapped_segments() -> int:
    with open("/proc/self/maps") as maps:
        return maps.read().count("memfd:pidfdpool-segment")


def _is_a_strangers(name: str) -> bool:
    """Return whether a process of no concern to this run has it mapped: another run on the same machine."""
    ours = {os.getpid(), *processes_of_this_run()}
    for pid in processes():
        try:
            with open(f"/proc/{pid}/maps") as maps:
                if pid not in ours and f"/dev/shm/{name}" in maps.read():
                    return True
        except OSError:
            continue
    return False


def pytest_collection_finish():
    """Let the collections after each test pass over what pytest and the tests' modules hold: that is most of all."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Fail the test if it leaves a process, a thread, a descriptor or shared memory behind."""
    yield from leftovers()


def leftovers(*, shared_memory: bool = True):
    """Look around, yield once, and fail the test if there is more than before. For fixtures."""
    threads = set(threading.enumerate())
    descriptors = _open_descriptors()
    memory = _shared_memory()
    mapped = _mapped_segments()
    running = set(processes())
    yield
    gc.collect()

    def left() -> dict[str, object]:
        found: dict[str, object] = {
            # Only what is new is looked at: to read the environments of all, twice for each test, takes minutes.
            "processes": [describe(pid) for pid in processes_of_this_run(among=set(processes()) - running)],
            "threads": [thread.name for thread in threading.enumerate() if thread not in threads],
            "descriptors": {
                fd: target for fd, target in _open_descriptors().items() if descriptors.get(fd) != target
            },
            "shared memory": {name for name in _shared_memory() - memory if not _is_a_strangers(name)}
            if shared_memory
            else None,
            "mapped segments": max(0, _mapped_segments() - mapped),
        }
        return {what: items for what, items in found.items() if items}

    try:
        eventually(lambda: not left(), "nothing is left of the test", seconds=5.0)
    except AssertionError:
        pytest.fail(f"left behind by the test: {left()}")


@pytest.fixture(params=["spawn", "fork"])
def way(request):
    """Both ways in which a template comes into being."""
    return request.param
