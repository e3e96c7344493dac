"""At a prompt: what was typed a moment ago runs in workers, as it is now."""

from __future__ import annotations

import sys

import pytest

from tests.conditions import marked
from tests.hosts.interactive import CTRL_C, CTRL_D, expect_fine, terminal, type_cells
from tests.hosts.observing import expect, expect_nothing_left, run
from tests.hosts.programs import session

PYTHON = "The prompt of Python"
IPYTHON = "IPython"
PROMPT = ">>> "
IPYTHON_PROMPT = r"In \[\d+\]: "
CONSOLE = "code.InteractiveConsole"


def prompt_env(name):
    # The same simple prompt on every version of Python.
    return {**marked(name), "PYTHON_BASIC_REPL": "1", "PYTHONSTARTUP": ""}


@pytest.mark.costly_table
@pytest.mark.case(PYTHON, "what is typed at the prompt runs in workers")
@pytest.mark.parametrize("topic", session.TOPICS)
def test_what_is_typed_at_the_prompt(contender, topic):
    env = prompt_env("prompt")
    with terminal(contender, [sys.executable, "-q"], env=env) as screen:
        type_cells(screen, session.session(topic), PROMPT)
        screen.press(CTRL_D)
        expect(screen.wait("the host does not end at Ctrl-D") == 0, "the host does not end well", screen.shown)
        expect_nothing_left(env)


@pytest.mark.case(PYTHON, "python -i script.py, then the prompt: functions of both")
def test_a_script_and_then_the_prompt(contender, tmp_path):
    env = prompt_env("prompt")
    (tmp_path / "script.py").write_text(session.script())
    with terminal(contender, [sys.executable, "-i", "script.py"], cwd=tmp_path, env=env) as screen:
        screen.wait_for(session.FINE, "the script does not come to its end")
        # The pool is the script's.
        definitions, uses = session.TOPICS["functions"]
        typed = ["assert pool.submit(Savings(5).pay, 3).result(20).balance == 11", session.SAY_FINE]
        type_cells(screen, [*session.cells(definitions), *session.cells(uses), *typed], PROMPT)
        screen.press(CTRL_D)
        expect(screen.wait("the host does not end at Ctrl-D") == 0, "the host does not end well", screen.shown)
        expect_nothing_left(env)


@pytest.mark.case(CONSOLE, "what is given to a console runs in workers")
@pytest.mark.parametrize("topic", ["functions", "classes", "a function is defined anew"])
def test_what_is_given_to_a_console(contender, topic):
    command = [sys.executable, "-m", "tests.hosts.programs.console", *session.session(topic)]
    expect_fine(run(contender, command))


# ---- interrupts ------------------------------------------------------------------------------------------------

HOLD = """
import os, time

def hold(name):
    open(name, "w").close()
    while not os.path.exists("go"):
        time.sleep(0.01)
    return name
"""


def interrupt_and_go_on(screen, folder, prompt):
    """Press Ctrl-C while the host waits for a task, then have that task end, and take its result."""
    type_cells(screen, [*session.cells(session.MAKE_POOL), *session.cells(HOLD)], prompt)
    screen.press("held = pool.submit(hold, 'begun')\nheld.result()\n")
    screen.wait_until((folder / "begun").exists, "the task does not begin")
    screen.press(CTRL_C)
    screen.wait_for("KeyboardInterrupt", "Ctrl-C has no effect", 10)
    expect("Process " not in screen.shown, "workers write tracebacks, too", screen.shown)
    (folder / "go").touch()
    type_cells(
        screen,
        [
            "assert pool.submit(abs, -3).result(20) == 3, 'a wrong result'",
            "assert held.result(20) == 'begun', 'the interrupt ends the task'",
            "pool.shutdown()",
        ],
        prompt,
    )


@pytest.mark.case(PYTHON, "Ctrl-C while a statement waits for a task; then more statements, and the task's result")
def test_ctrl_c_at_the_prompt(contender, tmp_path):
    env = prompt_env("interrupt")
    with terminal(contender, [sys.executable, "-q"], env=env, cwd=tmp_path) as screen:
        interrupt_and_go_on(screen, tmp_path, PROMPT)
        screen.press(CTRL_D)
        expect(screen.wait("the host does not end at Ctrl-D") == 0, "the host does not end well", screen.shown)
        expect_nothing_left(env)


# ---- IPython ---------------------------------------------------------------------------------------------------


@pytest.fixture
def ipython(tmp_path):
    """Return how an IPython without the user's settings is started, and its environment."""
    pytest.importorskip("IPython")
    command = [sys.executable, "-m", "IPython", "--no-banner", "--simple-prompt", "--colors=NoColor"]
    return command, {**marked("ipython"), "IPYTHONDIR": str(tmp_path / "ipython")}


@pytest.mark.costly_table
@pytest.mark.case(IPYTHON, "what is typed runs in workers")
@pytest.mark.parametrize("topic", ["functions", "classes", *session.CHANGING])
def test_what_is_typed_in_ipython(contender, topic, ipython, tmp_path):
    command, env = ipython
    with terminal(contender, command, env=env, cwd=tmp_path) as screen:
        type_cells(screen, session.session(topic), IPYTHON_PROMPT)
        screen.press("exit\n")
        expect(screen.wait("IPython does not end") == 0, "IPython does not end well", screen.shown)
        expect_nothing_left(env)


@pytest.mark.case(IPYTHON, "Ctrl-C while a statement waits for a task; then more statements, and the task's result")
def test_ctrl_c_in_ipython(contender, ipython, tmp_path):
    command, env = ipython
    with terminal(contender, command, env=env, cwd=tmp_path) as screen:
        interrupt_and_go_on(screen, tmp_path, IPYTHON_PROMPT)
        screen.press("exit\n")
        expect(screen.wait("IPython does not end") == 0, "IPython does not end well", screen.shown)
        expect_nothing_left(env)


def by_command(_folder):
    return ["-c", session.script()]


def by_file(folder):
    (folder / "program.py").write_text(session.script())
    return ["program.py"]


def by_run(folder):
    (folder / "program.py").write_text(session.script())
    return ["-c", "%run program.py"]


PROGRAMS = {"ipython -c": by_command, "ipython program.py": by_file, "%run program.py": by_run}


@pytest.mark.case(IPYTHON, "a program that IPython runs: its functions, classes and exceptions go to workers")
@pytest.mark.parametrize("way", PROGRAMS)
def test_a_program_in_ipython(contender, way, ipython, tmp_path):
    command, env = ipython
    expect_fine(run(contender, [*command, *PROGRAMS[way](tmp_path)], env=env, cwd=tmp_path))
    expect_nothing_left(env)
