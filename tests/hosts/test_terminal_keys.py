r"""At a terminal: Ctrl-C, Ctrl-Z, Ctrl-\ and hanging up, with keys pressed on a real one while a host uses a pool."""

from __future__ import annotations

import shutil
import signal
import sys
import textwrap

import pytest

from tests.conditions import eventually, is_alive, is_stopped, marked
from tests.hosts.interactive import CTRL_BACKSLASH, CTRL_C, CTRL_Z, terminal
from tests.hosts.observing import expect, expect_nothing_left, within

INTERRUPT = "Ctrl-C at a terminal"
STOP = "Ctrl-Z at a terminal"
END = "Ctrl-\\ and hanging up"

PRELUDE = """
import asyncio, os, sys, time
from concurrent.futures import as_completed
from tests.hosts.programs.contender import ProcessPoolExecutor

def begin(number):
    print(f"task {number} runs", flush=True)
    time.sleep(60)

def work(number):
    print(f"task {number} runs", flush=True)
    while not os.path.exists("go"):
        time.sleep(0.01)
    return 2 * number
"""
# How a host waits for tasks that take their time.
WAITING = {
    "result()": """
    pool = ProcessPoolExecutor(2)
    pool.submit(begin, 0).result()
    """,
    "map": """
    with ProcessPoolExecutor(2) as pool:
        for result in pool.map(begin, range(10)):
            pass
    """,
    "as_completed": """
    with ProcessPoolExecutor(2) as pool:
        for future in as_completed([pool.submit(begin, number) for number in range(4)]):
            future.result()
    """,
    "leaving with": """
    with ProcessPoolExecutor(2) as pool:
        futures = [pool.submit(begin, number) for number in range(4)]
    """,
    "run_in_executor": """
    pool = ProcessPoolExecutor(2)
    async def main():
        await asyncio.get_running_loop().run_in_executor(pool, begin, 0)
    asyncio.run(main())
    """,
    "run_in_executor, in with": """
    async def main():
        with ProcessPoolExecutor(2) as pool:
            await asyncio.get_running_loop().run_in_executor(pool, begin, 0)
    asyncio.run(main())
    """,
}


def program(text):
    return [sys.executable, "-c", PRELUDE + textwrap.dedent(text)]


@pytest.fixture
def env():
    return marked("keys")


@pytest.mark.costly_table
@pytest.mark.case(INTERRUPT, "Ctrl-C while the host waits for tasks: it ends, with a traceback of its own only")
@pytest.mark.parametrize("waits_in", WAITING)
def test_ctrl_c_ends_the_host(contender, waits_in, env):
    with terminal(contender, program(WAITING[waits_in]), env=env) as screen:
        screen.wait_for("task 0 runs", "no task runs")
        screen.press(CTRL_C)
        status = screen.wait("the host does not end at Ctrl-C", 10)
        expect(status == -signal.SIGINT, f"the host ends with {status}", screen.shown)
        expect("Process " not in screen.shown, "workers write tracebacks, too", screen.shown)
        expect("RemoteTraceback" not in screen.shown, "a worker's traceback comes with it", screen.shown)
        # asyncio shows the cancelled main task's first.
        most = 2 if "run_in" in waits_in else 1
        expect(screen.shown.count("Traceback") <= most, "more than one traceback", screen.shown)
        expect_nothing_left(env)


@pytest.mark.case(
    INTERRUPT, "Ctrl-C, which the host catches: running tasks go on and give their results, and new ones run"
)
def test_ctrl_c_is_caught(contender, env, tmp_path):
    text = """
    pool = ProcessPoolExecutor(2)
    futures = [pool.submit(work, number) for number in range(3)]
    try:
        futures[0].result()
    except KeyboardInterrupt:
        print("caught", flush=True)
    open("go", "w").close()
    print([future.result(10) for future in futures], pool.submit(abs, -3).result(10), flush=True)
    pool.shutdown()
    """
    with terminal(contender, program(text), env=env, cwd=tmp_path) as screen:
        for number in range(2):
            screen.wait_for(f"task {number} runs", "the tasks do not run")
        screen.press(CTRL_C)
        status = screen.wait("the host hangs")
        expect("caught" in screen.shown, "the interrupt is lost", screen.shown)
        expect("[0, 2, 4] 3" in screen.shown, "the interrupt ends the tasks", screen.shown)
        expect(status == 0, f"the host ends with {status}", screen.shown)
        expect("Traceback" not in screen.shown, "a traceback is shown", screen.shown)
        expect_nothing_left(env)


@pytest.mark.case(INTERRUPT, "Ctrl-C ten times while the host starts a pool, and again, and uses it: it ends")
def test_ctrl_c_while_the_pool_starts(contender, env):
    text = """
    print("begins", flush=True)
    while True:
        with ProcessPoolExecutor(2) as pool:
            list(pool.map(abs, range(100)))
    """
    with terminal(contender, program(text), env=env) as screen:
        screen.wait_for("begins", "the host does not start")
        for _ in range(10):
            screen.press(CTRL_C)
            screen.collect(0.05)
        screen.wait("the host does not end at Ctrl-C", 10)
        expect_nothing_left(env)


# ---- Ctrl-Z ----------------------------------------------------------------------------------------------------

STOPPABLE = {
    "map": """
    with ProcessPoolExecutor(2) as pool:
        print(list(pool.map(work, range(4))), flush=True)
    """,
    "as_completed": """
    with ProcessPoolExecutor(2) as pool:
        futures = [pool.submit(work, n) for n in range(4)]
        print(sorted(future.result() for future in as_completed(futures)), flush=True)
    """,
    "run_in_executor": """
    async def main():
        with ProcessPoolExecutor(2) as pool:
            loop = asyncio.get_running_loop()
            print(await asyncio.gather(*(loop.run_in_executor(pool, work, n) for n in range(4))), flush=True)
    asyncio.run(main())
    """,
}


@pytest.mark.case(STOP, "Ctrl-Z in a shell, fg: the host goes on, and the results are right")
@pytest.mark.parametrize("waits_in", STOPPABLE)
def test_ctrl_z_and_fg(contender, waits_in, env, tmp_path):
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("there is no bash")
    (tmp_path / "program.py").write_text(PRELUDE + textwrap.dedent(STOPPABLE[waits_in]))
    command = [shell, "--norc", "--noprofile", "-i"]
    with terminal(contender, command, env={**env, "PS1": "ready> "}, cwd=tmp_path) as screen:
        screen.wait_for("ready> ", "the shell does not start")
        screen.press(f"{sys.executable} program.py\n")
        screen.wait_for("task 0 runs", "no task runs")
        screen.press(CTRL_Z)
        screen.wait_for("Stopped", "the host does not stop at Ctrl-Z", 5)
        (tmp_path / "go").touch()
        screen.press("fg\n")
        screen.wait_for("[0, 2, 4, 6]", "the host does not go on", 10)
        screen.wait_for("ready> ", "the host does not end", times=3)
        screen.press("exit\n")
        screen.wait("the shell does not end")
        expect_nothing_left(env)


@pytest.mark.case(STOP, "Ctrl-Z, and the stopped host is killed: nothing is left")
def test_ctrl_z_and_kill(contender, env):
    with terminal(contender, program(WAITING["map"]), env=env) as screen:
        # Only the terminal's own signal would be ignored: the host is in an orphaned process group.
        screen.wait_for("task 0 runs", "no task runs")
        screen.process.send_signal(signal.SIGSTOP)
        eventually(lambda: is_stopped(screen.process.pid), "the host is stopped")
        screen.process.kill()
        screen.wait("the host does not end")
        expect_nothing_left(env)


def test_a_task_times_out_while_its_host_is_stopped(env, tmp_path):
    """Ours alone: what came due meanwhile is seen to when the host goes on; a result that is there wins."""
    text = """
    from pidfdpool import TaskTimeout
    with ProcessPoolExecutor(2) as pool:
        late = pool.options(timeout=3).submit(begin, 0)
        done = pool.options(timeout=30).submit(work, 1)
        print(type(late.exception(20)).__name__, done.result(20), pool.submit(abs, -3).result(20), flush=True)
    """
    with terminal("spawn", program(text), env=env, cwd=tmp_path) as screen:
        for number in range(2):
            screen.wait_for(f"task {number} runs", "the tasks do not run")
        screen.process.send_signal(signal.SIGSTOP)
        eventually(lambda: is_stopped(screen.process.pid), "the host is stopped")
        (tmp_path / "go").touch()
        screen.collect(3.5)  # the time of the first task is over by then, however late it began to tell
        screen.process.send_signal(signal.SIGCONT)
        expect(screen.wait("the host hangs") == 0, "the host fails", screen.shown)
        expect("TaskTimeout 2 3" in screen.shown, "not the right outcomes", screen.shown)
        expect_nothing_left(env)


# ---- the host's end --------------------------------------------------------------------------------------------


@pytest.mark.case(END, "Ctrl-\\ while tasks run: the host dies of SIGQUIT, and nothing is left")
@pytest.mark.parametrize("waits_in", ["map", "run_in_executor"])
def test_ctrl_backslash(contender, waits_in, env):
    with terminal(contender, program(WAITING[waits_in]), env=env) as screen:
        screen.wait_for("task 0 runs", "no task runs")
        screen.press(CTRL_BACKSLASH)
        status = screen.wait("the host does not end at Ctrl-\\", 10)
        expect(status == -signal.SIGQUIT, f"the host ends with {status}", screen.shown)
        expect_nothing_left(env)


@pytest.mark.case(END, "the terminal is closed while tasks run: the host dies of SIGHUP, and nothing is left")
@pytest.mark.parametrize("where", ["at the terminal itself", "in a shell"])
def test_hanging_up(contender, where, env, tmp_path):
    (tmp_path / "program.py").write_text(PRELUDE + textwrap.dedent(WAITING["map"]))
    command = [sys.executable, "program.py"]
    if where == "in a shell":
        # With job control, so that the host has a process group of its own; and with something after it, or the
        # shell would become the host.
        command = ["/bin/sh", "-m", "-c", f"{sys.executable} program.py; true"]
    with terminal(contender, command, env=env, cwd=tmp_path) as screen:
        screen.wait_for("task 0 runs", "no task runs")
        screen.hang_up()
        within(10, lambda: not is_alive(screen.process.pid), "the host does not end")
        expect_nothing_left(env)


# ---- workers and the terminal ----------------------------------------------------------------------------------


@pytest.mark.case(STOP, "stty tostop; a host in the background: its tasks print, and read from standard input")
def test_background_jobs_and_the_terminal(contender, env, tmp_path):
    shell = shutil.which("bash")
    if shell is None or shutil.which("stty") is None:
        pytest.skip("there is no bash, or no stty")
    text = """
    import sys
    def read():
        print("said by a worker", flush=True)
        return sys.stdin.read()
    with ProcessPoolExecutor(1) as pool:
        read = pool.submit(read).result(10)
    with open("outcome", "w") as file:
        file.write(repr(read))
    """
    (tmp_path / "program.py").write_text(PRELUDE + textwrap.dedent(text))
    command = [shell, "--norc", "--noprofile", "-i"]
    with terminal(contender, command, env={**env, "PS1": "ready> "}, cwd=tmp_path) as screen:
        screen.wait_for("ready> ", "the shell does not start")
        screen.press(f"stty tostop; {sys.executable} program.py &\n")
        outcome = tmp_path / "outcome"
        screen.wait_until(
            lambda: (outcome.exists() and outcome.read_text()) or "Stopped" in screen.shown, "the host hangs", 10
        )
        expect("Stopped" not in screen.shown, "the host is stopped by what its worker does", screen.shown)
        expect(outcome.read_text() == "''", "a worker reads what is typed", outcome.read_text())
        expect("said by a worker" in screen.shown, "what the worker says is not shown", screen.shown)
        screen.press("exit\n")
        screen.wait("the shell does not end")
        expect_nothing_left(env)
