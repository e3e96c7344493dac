"""Programs with a main loop of a window system's or GLib's, which watches timers, children, and what threads tell.

Windows are shown on a screen in memory (Xvfb).
"""

from __future__ import annotations

import subprocess
import textwrap

import pytest

from tests.hosts.far import debian, scripts
from tests.hosts.observing import expect

SECTION = "Qt, Tk and GLib"
LOOPS = {"PyQt5": "PyQt5.QtWidgets", "PySide2": "PySide2.QtCore", "Tk": "tkinter", "GLib": "gi.repository.GLib"}


@pytest.fixture(scope="session")
def importable():
    """Return which of the loops' modules Debian's Python has."""
    debian.needs(debian.PYTHON)
    code = """
        import importlib, sys
        for name in sys.argv[1:]:
            try:
                importlib.import_module(name)
            except ImportError:
                continue
            print(name)
    """
    command = [debian.PYTHON, "-c", textwrap.dedent(code), *LOOPS.values()]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split()


@pytest.fixture(params=LOOPS)
def loop(request, importable):
    if LOOPS[request.param] not in importable:
        pytest.skip(f"{request.param} is not installed; tests/hosts/far/install does that")
    return request.param


def program(*arguments):
    return lambda _: [debian.PYTHON, "-m", "tests.hosts.far.programs.loops", *arguments]


@pytest.mark.case(
    SECTION,
    "results and a crash reach the loop by callbacks, while it has timers and a child of its own",
    ways="both",
)
def test_working(contender, loop, home, display, tmp_path):
    env = {"DISPLAY": display, "XDG_RUNTIME_DIR": str(tmp_path)}
    told = scripts.work(contender, home, program(loop), "", env=env)
    expect(told == ["done"], "the program does not come to its end", told)


@pytest.mark.case(SECTION, "the program is killed (SIGKILL) while its workers compute")
def test_kill(contender, loop, home, display):
    scripts.be_killed(contender, home, program(loop, "stay"), DISPLAY=display)
