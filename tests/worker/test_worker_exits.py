"""What a worker does at its end: the same in all ways in which it can have come to be."""

from __future__ import annotations

import atexit
import concurrent.futures
import logging.handlers
import multiprocessing.util
import os
import signal
import sys
import threading
import time
import weakref

import pytest

from pidfdpool import PidfdPoolExecutor
from tests import calls
from tests.conditions import run_python

_kept: list = []


class Thing:
    """Something that can be referred to weakly."""


def collect_records(path, name):
    """Have a logger collect records, and write them to the file at its end."""
    handler = logging.handlers.MemoryHandler(1000, target=logging.FileHandler(path))
    logger = logging.getLogger(name)
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    _kept.append(handler)
    return logger


def register_all(path):
    """Ask for everything that a process can be asked to do at its end; each appends a word to the file."""
    atexit.register(calls.append, path, "atexit ")
    thing = Thing()
    _kept.append(thing)
    weakref.finalize(thing, calls.append, path, "finalize ")
    multiprocessing.util.Finalize(None, calls.append, (path, "multiprocessing "), exitpriority=5)
    collect_records(path, "of a worker").info("record ")
    threading._register_atexit(calls.append, path, "threading ")

    def wait_and_append(word):
        time.sleep(0.05)
        calls.append(path, word)

    threading.Thread(target=wait_and_append, args=("thread ",)).start()
    pool = concurrent.futures.ThreadPoolExecutor(1)
    pool.submit(wait_and_append, "pooled ")
    _kept.append(pool)
    child = multiprocessing.get_context("fork").Process(target=calls.append, args=(path, "child "))
    child.start()
    _kept.append(child)
    file = open(f"{path}-open", "w")
    file.write("held")
    _kept.append(file)
    atexit.register(print, "printed", file=sys.stderr, end="")


def preload_all():
    """Have the template use once what registers an exit function at its first use."""
    _kept.append(Thing())
    weakref.finalize(_kept[-1], int)
    concurrent.futures.ThreadPoolExecutor(1)


PRELOAD = ("logging.handlers", "weakref", "concurrent.futures.thread", "multiprocessing.util", "tests.calls")
EXPECTED = ["atexit", "child", "finalize", "multiprocessing", "pooled", "record", "thread", "threading"]


@pytest.mark.parametrize("preload", [(), (*PRELOAD, preload_all)], ids=["bare", "preloaded"])
def test_all_that_is_to_be_done_at_a_workers_end_is_done(way, preload, tmp_path, capfd):
    """Guards against exit functions that are cleared, or never registered because the parent had registered them."""
    path = str(tmp_path / "done")
    host = Thing()
    finalizer = weakref.finalize(host, calls.append, path, "of-the-host ")
    handler = logging.handlers.MemoryHandler(1000, target=logging.FileHandler(path, delay=True))
    logging.getLogger("of the host").addHandler(handler)
    logging.getLogger("of the host").warning("of-the-host ")
    try:
        with PidfdPoolExecutor(1, mp_context=way, preload=preload) as pool:
            assert pool.submit(register_all, path).result(timeout=20) is None
        with open(path) as done, open(f"{path}-open") as held:
            assert sorted(set(done.read().split())) == EXPECTED  # the child, a fork, does some of it, too
            assert held.read() == "held"
        assert "printed" in capfd.readouterr().err
    finally:
        finalizer.detach()
        logging.getLogger("of the host").removeHandler(handler)
        handler.buffer.clear()
        handler.close()


def register_in_the_template():
    path = os.environ["PIDFDPOOL_TEST_PATH"]
    from atexit import register

    global kept_register
    kept_register = register  # as a module does that is imported now
    register(calls.append, path, "atexit ")
    register(calls.append, path, "withdrawn ")
    atexit.unregister(calls.append)
    register(say, path, "atexit ")
    _kept.append(Thing())
    weakref.finalize(_kept[-1], say, path, "finalize ")
    collect_records(path, "of the template").info("record")


def say(path, word):
    calls.append(path, word)


def register_by_the_templates_function(path):
    kept_register(calls.append, path, "worker ")


def test_what_a_preload_has_registered_is_done_once_by_the_template(way, tmp_path, monkeypatch):
    """Guards against exit functions of a preload that nobody runs, or that every worker runs."""
    path = str(tmp_path / "done")
    monkeypatch.setenv("PIDFDPOOL_TEST_PATH", path)
    with PidfdPoolExecutor(2, mp_context=way, preload=register_in_the_template) as pool:
        pool.prestart(2)
        pool.submit(register_by_the_templates_function, path).result(timeout=20)
    with open(path) as done:
        assert sorted(done.read().split()) == ["atexit", "finalize", "record", "worker"]


def test_a_worker_whose_exit_function_hangs_is_killed(way, tmp_path):
    deaths = []
    with PidfdPoolExecutor(1, mp_context=way, stop_grace=0.2) as pool:
        pool.subscribe(deaths.append)
        pool.submit(atexit.register, time.sleep, 3600).result(timeout=20)
    assert [death.exit_status.signal for death in deaths] == [signal.SIGKILL]


def test_exit_functions_of_the_interpreters_start_are_each_workers(tmp_path):
    """Guards against forgetting what a .pth file or sitecustomize has registered, say that of a coverage tool."""
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, os, signal\n"
        "def say(word):\n"
        "    with open(os.environ['SAID'], 'a') as file:\n"
        "        file.write(f'{word} {os.getpid()}\\n')\n"
        "atexit.register(say, 'exit')\n"
        "signal.signal(signal.SIGUSR2, lambda *_: say('signal'))\n"
    )
    code = """
        import os, signal, sys
        from pidfdpool import PidfdPoolExecutor
        with PidfdPoolExecutor(1, preload=("json",) if sys.argv[1] == "preload" else ()) as pool:
            worker = pool.submit(os.getpid).result()
            pool.submit(os.kill, worker, signal.SIGUSR2).result()
        print(worker)
    """
    for how in ("bare", "preload"):
        said = tmp_path / how
        path = f"{tmp_path}{os.pathsep}{os.path.dirname(os.path.dirname(os.path.dirname(__file__)))}"
        done = run_python(code, how, env={"PYTHONPATH": path, "SAID": str(said)})
        assert done.returncode == 0, done.stderr
        worker = done.stdout.strip()
        of_worker = [line for line in said.read_text().splitlines() if line.endswith(f" {worker}")]
        assert of_worker == [f"signal {worker}", f"exit {worker}"]
