"""Programs of C that have Python inside: there sys.executable is not what runs, and the main loop is theirs."""

from __future__ import annotations

import sys

import pytest

from tests.hosts.far import debian, scripts
from tests.hosts.observing import expect

SECTION = "programs with Python inside"
COMMANDS = {
    "gdb": lambda file: ["gdb", "-nx", "-q", "-batch", "-x", file],
    "Vim": lambda file: ["vim", "-u", "NONE", "-e", "-s", "-c", f"py3file {file}", "-c", "qa!"],
    "WeeChat": lambda file: [
        *("weechat-headless", "-d", file.parent / "weechat", "--stdout"),
        *("-r", f"/python load {_as_plugin(file)}"),
    ],
}
# WeeChat runs each of its scripts in a subinterpreter, and has it register.
REGISTER = """
import weechat
weechat.register("far", "nobody", "1", "MIT", "a script of a test's", "", "")
try:
    exec(compile(open({file!r}).read(), {file!r}, "exec"))
finally:
    weechat.command("", "/quit")
"""


def _as_plugin(file):
    plugin = file.parent / "plugin.py"
    plugin.write_text(REGISTER.format(file=str(file)))
    return plugin


@pytest.fixture(params=COMMANDS)
def program(request):
    debian.needs(request.param.lower().replace("weechat", "weechat-headless"))
    return request.param


@pytest.mark.case(SECTION, "tasks, also of what the script defines; workers crash; tasks; the end")
def test_working(contender, program, home):
    told = scripts.work(contender, home, COMMANDS[program], noise=program == "WeeChat", env={"TERM": "xterm"})
    expect(told == ["worked"], "the script does not come to its end", told)


@pytest.mark.case(SECTION, "the program is killed (SIGKILL) while its workers compute")
def test_kill(contender, program, home):
    scripts.be_killed(contender, home, COMMANDS[program], TERM="xterm")


DEBUG = """
import gdb
with ProcessPoolExecutor(2) as pool:
    compute(pool)
    for command in ("set debuginfod enabled off", "file /bin/sh", "set args -c 'sleep 0.1; exit 7'", "starti"):
        gdb.execute(command, to_string=True)
    compute(pool)
    lose(pool, tasks.leave, 3)
    use()
    gdb.execute("continue", to_string=True)
    code = int(gdb.parse_and_eval("$_exitcode"))
    expect(code == 7, "gdb is wrong about the end of the program that it debugs", code)
use()
tell("debugged")
"""


@pytest.mark.case(
    SECTION, "gdb debugs a program; a pool from before that, and one from then; workers crash", ways="both"
)
def test_gdb_debugs_a_program(contender, home):
    debian.needs("gdb")
    told = scripts.work(contender, home, COMMANDS["gdb"], DEBUG, noise=True)
    expect(told == ["debugged"], "the script does not come to its end", told)


# What managers of Python's versions put first in PATH: a script that starts another Python.
SHIM = '#!/bin/sh\nexec {python} "$@"\n'


@pytest.mark.case(SECTION, "a script named python3, which starts another Python, comes first in PATH")
def test_a_shim(contender, program, home, tmp_path):
    for name in ("python", "python3"):
        (tmp_path / name).write_text(SHIM.format(python=sys.executable))
        (tmp_path / name).chmod(0o755)
    env = {"TERM": "xterm", "PATH": f"{tmp_path}:{debian.PATH}"}
    told = scripts.work(contender, home, COMMANDS[program], noise=True, env=env)
    expect(told == ["worked"], "the script does not come to its end", told)
