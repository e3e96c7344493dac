"""A worker is one of multiprocessing's processes, whenever that is loaded."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from pidfdpool import PidfdPoolExecutor, current_task
from tests import calls
from tests.conditions import eventually, run_python

pytestmark = pytest.mark.parametrize("way", ["spawn", "fork"])


def who_am_i(_: object = None) -> tuple[str, bool, int]:
    from multiprocessing import current_process, parent_process

    return current_process().name, current_process().daemon, parent_process().pid


def who_am_i_from_a_thread() -> tuple[str, bool, int]:
    told = []
    thread = threading.Thread(target=lambda: told.append(who_am_i()))
    thread.start()
    thread.join()
    return told[0]


def as_logging_says() -> str | None:
    import logging

    return logging.makeLogRecord({}).processName or logging.LogRecord("", 0, "", 0, "", (), None).processName


def as_a_fork_says() -> str:
    import os

    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(write, who_am_i()[0].encode())
        os._exit(0)
    os.waitpid(pid, 0)
    return os.read(read, 100).decode()


def finders_of_loaded_modules() -> list[str]:
    import multiprocessing  # noqa: F401

    ours = [finder for finder in sys.meta_path if type(finder).__module__.startswith("pidfdpool")]
    return [finder.name for finder in ours if finder.name in sys.modules]


@pytest.mark.parametrize("ask", [who_am_i, who_am_i_from_a_thread])
def test_it_knows_its_name_and_its_parent(way, ask):
    import os

    with PidfdPoolExecutor(1, mp_context=way) as pool:
        assert pool.submit(ask).result(timeout=20) == ("PidfdPoolWorker-0", False, os.getpid())


def test_logging_tells_its_name(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        assert pool.submit(as_logging_says).result(timeout=20) == "PidfdPoolWorker-0"


def test_so_it_does_when_the_preload_has_loaded_it(way):
    with PidfdPoolExecutor(1, mp_context=way, preload=["logging", "tests.worker.test_identity"]) as pool:
        assert pool.submit(as_logging_says).result(timeout=20) == "PidfdPoolWorker-0"
    with PidfdPoolExecutor(1, mp_context=way, preload="logging") as pool:
        assert pool.submit(eval, "__import__('sys').modules['multiprocessing'] is not None").result(timeout=20)
    with PidfdPoolExecutor(1, mp_context=way, preload="multiprocessing") as pool:
        assert pool.submit(who_am_i).result(timeout=20)[0] == "PidfdPoolWorker-0"


def test_what_it_forks_takes_it_over(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        assert pool.submit(as_a_fork_says).result(timeout=20) == "PidfdPoolWorker-0"


def test_nothing_of_it_stays_among_the_finders_once_the_module_is_loaded(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        assert pool.submit(finders_of_loaded_modules).result(timeout=20) == []


def test_the_module_looks_as_it_always_does(way):
    done = run_python(
        f"""
        from pidfdpool import PidfdPoolExecutor
        import multiprocessing.process as here
        look = "(lambda m: (m.__name__, m.__file__, type(m.__loader__).__name__, m.__spec__.loader is m.__loader__))"
        with PidfdPoolExecutor(1, mp_context={way!r}) as pool:
            there = pool.submit(eval, look + "(__import__('multiprocessing.process').process)").result()
            assert there == eval(look)(here), there
        """
    )
    assert (done.returncode, done.stderr) == (0, "")


def note_when_there_is_no_task(path):
    def look():
        while current_task() is not None:
            time.sleep(0.005)
        calls.note(path)

    threading.Thread(target=look, daemon=True).start()
    return current_task().attempt


def test_between_tasks_a_worker_has_none(way, tmp_path):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        assert pool.submit(note_when_there_is_no_task, str(tmp_path / "none")).result(20) == 1
        eventually((tmp_path / "none").exists, "its threads are told of no task any more")


def children() -> list[int]:
    import multiprocessing

    return [child.pid for child in multiprocessing.active_children()]


def start_and_name() -> str:
    import multiprocessing

    child = multiprocessing.get_context("fork").Process(target=children)
    child.start()
    child.join()
    return child.name


def test_the_hosts_own_processes_are_none_of_a_workers(way):
    """Guards: a forked worker had the host's among its children, and ended those that are daemonic at its exit."""
    import multiprocessing

    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(100,), daemon=True)
    child.start()
    try:
        with PidfdPoolExecutor(1, mp_context=way) as pool:
            assert pool.submit(children).result(timeout=20) == []
            assert pool.submit(start_and_name).result(timeout=20) == "ForkProcess-1:1", "it counts its own"
        assert child.is_alive()
    finally:
        child.kill()
        child.join()
        child.close()
