"""At a prompt: what was typed a moment ago runs in workers, as it is now."""

from __future__ import annotations

import os
import re
import sys

import pytest

from tests.conditions import marked
from tests.hosts.interactive import CTRL_D, expect_fine, terminal, type_cells
from tests.hosts.observing import expect, expect_nothing_left, run
from tests.hosts.programs import session

PYTHON = "The prompt of Python"
IPYTHON = "IPython"
CONSOLE = "code.InteractiveConsole"


def prompt_env(name):
    # The same simple prompt on every version of Python.
    return {**marked(name), "PYTHON_BASIC_REPL": "1", "PYTHONSTARTUP": ""}


@pytest.mark.case(PYTHON, "what is typed at the prompt runs in workers")
@pytest.mark.parametrize("topic", session.TOPICS)
def test_what_is_typed_at_the_prompt(contender, topic):
    env = prompt_env("prompt")
    with terminal(contender, [sys.executable, "-q"], env=env) as screen:
        type_cells(screen, session.session(topic), ">>> ")
        screen.press(CTRL_D)
        expect(screen.wait("the host does not end at Ctrl-D") == 0, "the host does not end well", screen.shown)
        expect_nothing_left(env)


@pytest.mark.case(PYTHON, "python -i script.py, then the prompt: functions of both")
def test_a_script_and_then_the_prompt(contender, tmp_path):
    env = prompt_env("prompt")
    (tmp_path / "script.py").write_text(session.script())
    with terminal(contender, [sys.executable, "-i", "script.py"], cwd=tmp_path, env=env) as screen:
        screen.wait_for(session.FINE, "the script does not come to its end")
        type_cells(screen, session.session("functions"), ">>> ")
        type_cells(screen, ["assert pool.submit(Savings(5).pay, 3).result(20).balance == 11", session.SAY_FINE], ">>> ")
        screen.press(CTRL_D)
        expect(screen.wait("the host does not end at Ctrl-D") == 0, "the host does not end well", screen.shown)
        expect_nothing_left(env)


@pytest.mark.case(CONSOLE, "what is given to a console runs in workers")
@pytest.mark.parametrize("topic", session.TOPICS)
def test_what_is_given_to_a_console(contender, topic):
    command = [sys.executable, "-m", "tests.hosts.programs.console", *session.session(topic)]
    expect_fine(run(contender, command))


# ---- IPython ---------------------------------------------------------------------------------------------------


@pytest.fixture
def ipython(tmp_path):
    """What an IPython of its own, without the user's settings, is started with."""
    pytest.importorskip("IPython")
    return {**marked("ipython"), "IPYTHONDIR": str(tmp_path / "ipython"), "IPY_TEST_SIMPLE_PROMPT": "1"}


@pytest.mark.case(IPYTHON, "what is typed runs in workers")
@pytest.mark.parametrize("topic", session.TOPICS)
def test_what_is_typed_in_ipython(contender, topic, ipython):
    with terminal(contender, [sys.executable, "-m", "IPython", "--no-banner", "--simple-prompt"], env=ipython) as screen:
        type_numbered(screen, session.session(topic))
        screen.press("exit\n")
        expect(screen.wait("IPython does not end") == 0, "IPython does not end well", screen.shown)
        expect_nothing_left(ipython)
