"""A Jupyter kernel: cells that use a pool, are changed and run again, interrupted; the kernel restarts with it."""

from __future__ import annotations

import pytest

from tests.conditions import marked
from tests.hosts.interactive import last_error
from tests.hosts.notebook import notebook
from tests.hosts.observing import expect, expect_nothing_left, within
from tests.hosts.programs import session

SECTION = "Jupyter notebooks"

HOLD = """
import os, time
from tests.hosts.programs import tasks
def hold(begun, path):
    open(begun, "w").close()
    while not os.path.exists(path):
        time.sleep(0.01)
    return "done"
"""
# What a cell does when it is interrupted: each waits for a task that is held up.
WAITING = {
    "result()": "held = pool.submit(hold, 'begun', 'go')\nheld.result()",
    "map": "held = pool.submit(hold, 'begun', 'go')\nlist(pool.map(hold, ['x'] * 4, ['go'] * 4))",
}


@pytest.fixture
def env():
    return marked("notebook")


@pytest.mark.case(SECTION, "functions, classes and exceptions of earlier cells go to workers and come back")
def test_what_cells_define(contender, tmp_path, env):
    with notebook(contender, tmp_path, env) as opened:
        for cell in session.session(*session.STEADY):
            opened.run(cell)


@pytest.mark.costly_table
@pytest.mark.case(SECTION, "while the pool is in use, cells define more, are changed and run again")
@pytest.mark.parametrize("topic", session.CHANGING)
def test_cells_that_change(contender, topic, tmp_path, env):
    with notebook(contender, tmp_path, env) as opened:
        for cell in session.session(topic):
            opened.run(cell)


@pytest.mark.case(SECTION, "what a task prints is shown in the notebook")
def test_what_a_task_prints_is_shown(contender, tmp_path, env):
    with notebook(contender, tmp_path, env) as opened:
        opened.run(session.MAKE_POOL)
        shown = [opened.run("pool.submit(print, 'said in a worker').result(20)")["stdout"]]

        def is_shown():
            # It comes by a pipe, on which the kernel may look a little later.
            shown.append(opened.run("pass")["stdout"])
            return "said in a worker\n" in "".join(shown)

        within(10, is_shown, "it is not shown")


@pytest.mark.case(SECTION, "await loop.run_in_executor(pool, ...) in a cell")
def test_await_in_a_cell(contender, tmp_path, env):
    with notebook(contender, tmp_path, env) as opened:
        opened.run(session.MAKE_POOL)
        opened.run("import asyncio; loop = asyncio.get_running_loop()")
        opened.run("answers = await asyncio.gather(*(loop.run_in_executor(pool, abs, -n) for n in range(50)))")
        opened.run("assert answers == list(range(50)), 'a wrong result'")


@pytest.mark.case(
    SECTION, "the kernel is interrupted while a cell waits; then more cells, and the result of the task"
)
@pytest.mark.parametrize("waits_in", WAITING)
def test_an_interrupt_while_a_cell_waits(contender, waits_in, tmp_path, env):
    with notebook(contender, tmp_path, env) as opened:
        opened.run(session.MAKE_POOL)
        opened.run(HOLD)
        opened.ask("begin", WAITING[waits_in])
        within(20, (tmp_path / "begun").exists, "the task does not begin")
        opened.ask("interrupt")
        shown = opened.ask("finish", 10)
        expect(shown["ended"], "the interrupt has no effect", shown)
        expect(last_error(shown["error"] + "\n"), "the cell ends without KeyboardInterrupt", shown)
        (tmp_path / "go").touch()
        opened.run("assert pool.submit(abs, -3).result(20) == 3, 'a wrong result'")
        opened.run("assert held.result(20) == 'done', 'a wrong result'")


# Each interrupt comes somewhere in the submits.
INTERRUPTED = """
import random, signal, threading, time
def interrupt_soon():
    time.sleep(random.uniform(0.005, 0.05))
    signal.raise_signal(signal.SIGINT)
threads = []
for _ in range(20):
    futures = []
    threads.append(threading.Thread(target=interrupt_soon))
    try:
        threads[-1].start()
        while True:
            futures.append(pool.submit(abs, -1))
    except KeyboardInterrupt:
        for future in futures:
            future.cancel()
    assert pool.submit(abs, -3).result(20) == 3, "a wrong result"
"""


@pytest.mark.case(SECTION, "a cell that submits many tasks is interrupted, and the pool used again, 20 times")
def test_interrupts_while_a_cell_submits(contender, tmp_path, env):
    with notebook(contender, tmp_path, env) as opened:
        opened.run(session.MAKE_POOL)
        opened.run("pool.submit(abs, 0).result(20)")
        opened.run(INTERRUPTED, seconds=60)


@pytest.mark.case(SECTION, "the kernel restarts while tasks run; nothing is left of it, and a new pool works")
def test_a_restart(contender, tmp_path, env):
    before = marked("before")
    with notebook(contender, tmp_path, env) as opened:
        opened.run(f"import os; os.environ.update({before!r})")
        _keep_busy(opened, tmp_path)
        opened.ask("restart", seconds=30)
        expect_nothing_left(before)
        opened.run(session.MAKE_POOL)
        opened.run("assert pool.submit(abs, -3).result(20) == 3, 'a wrong result'")


@pytest.mark.case(SECTION, "the kernel is shut down while tasks run; nothing is left of it")
@pytest.mark.parametrize("how", ["politely", "at once"])
def test_a_shutdown(contender, how, tmp_path, env):
    with notebook(contender, tmp_path, env) as opened:
        _keep_busy(opened, tmp_path)
        opened.ask("shutdown", how == "at once", seconds=30)
    expect_nothing_left(env)


def _keep_busy(opened, folder):
    """Have a pool in the kernel whose workers have a task each that does not end by itself."""
    opened.run(session.MAKE_POOL)
    opened.run("from tests.hosts.programs import tasks")
    opened.run("for name in ('one', 'two', 'three'): pool.submit(tasks.touch_and_spin, name)")
    within(20, lambda: (folder / "one").exists() and (folder / "two").exists(), "the tasks do not begin")
