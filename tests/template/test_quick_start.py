"""A template that was started and has not said HELLO yet: submit has returned by then, and the host goes on.

The template is held at its start, until the host lets it go: in the exec way by a sitecustomize, in the fork way by
a fork hook.
"""

from __future__ import annotations

import pytest

from tests.conditions import ROOT, eventually, marked, processes_of_this_run, run_python, start_python

BOTH = pytest.mark.parametrize("way", ["spawn", "fork"])

HOST = """
import os, signal, sys, threading, time
from pidfdpool import PidfdPoolExecutor, PoolBroken
from pidfdpool.pidfd import Pidfd
from pidfdpool.template import client, launch
from tests import calls
from tests.conditions import children, eventually

way, folder = sys.argv[1:3]
gate, born = folder + "/gate", folder + "/born"
os.mkfifo(gate)

HOLD = '''
import os
if "HELD" in os.environ:
    with open(os.environ["HELD"] + "/new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(file.name, os.environ["HELD"] + "/born")
    open(os.environ["HELD"] + "/gate").close()
'''

if way == "spawn":
    with open(folder + "/sitecustomize.py", "w") as file:
        file.write(HOLD)
    os.environ["PYTHONPATH"] = folder + os.pathsep + os.environ["PYTHONPATH"]

def hold():
    "Have the next template held at its start."
    os.environ["HELD"] = folder

def hold_no_more():
    os.environ.pop("HELD", None)

depth = 0

def deeper():
    global depth
    depth += 1
    if depth == 2 and way == "fork":  # the launcher is the first, and the template is forked from it
        exec(HOLD)

os.register_at_fork(after_in_child=deeper)

def held():
    "Return the pid of the template that is held."
    eventually(lambda: os.path.exists(born), "the template has been born")
    with open(born) as file:
        return int(file.read())

def let_go():
    open(gate, "w").close()

hold()
pool = PidfdPoolExecutor(2, mp_context=way)
first = pool.submit(calls.double, 2)
hold_no_more()
"""


def check(way, folder, code):
    done = run_python(HOST + code, way, str(folder), flags=["-W", "ignore"])
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


@BOTH
def test_submit_returns_before_the_template_is_there_and_leaves_no_child(way, tmp_path):
    code = """
assert held() not in children(os.getpid())
assert not children(os.getpid())
assert not first.done()
let_go()
assert first.result(20) == 4
pool.shutdown()
"""
    check(way, tmp_path, code)


@BOTH
def test_what_is_asked_for_before_the_template_is_there_is_done_when_it_is(way, tmp_path):
    code = """
held()
pool.resize(3)
assert pool.prestart(2, wait=False) == 0
second = pool.submit(calls.double, 4)
let_go()
assert (first.result(20), second.result(20)) == (4, 8)
assert pool.prestart(3, timeout=20) == 3
assert not pool.stats().deaths
pool.shutdown()
"""
    check(way, tmp_path, code)


@BOTH
@pytest.mark.parametrize("cancel", [False, True])
def test_a_pool_can_be_shut_down_before_the_template_is_there(way, cancel, tmp_path):
    code = f"""
template = Pidfd.open(held())
pool.shutdown(wait=False, cancel_futures={cancel})
let_go()
pool.shutdown()
assert template.wait(20)
assert first.cancelled() or first.result(0) == 4
assert {cancel} or not first.cancelled()
"""
    check(way, tmp_path, code)


@BOTH
def test_a_host_may_end_before_the_template_is_there(way, tmp_path):
    code = """
held()
threading.Thread(target=let_go).start()
first.add_done_callback(lambda future: print(future.result(), flush=True))
"""
    assert check(way, tmp_path, code) == "4\n"


@BOTH
def test_a_template_that_comes_to_be_after_the_host_was_killed_leaves(way, tmp_path):
    environment = marked("killed")
    code = HOST + "held(); print('held', flush=True); time.sleep(60)"
    with start_python(code, way, str(tmp_path), env=environment) as host:
        assert host.stdout.readline() == "held\n"
        host.kill()
    with open(tmp_path / "gate", "w"):
        pass
    eventually(lambda: not processes_of_this_run(*environment.values()), "nothing is left of the pool")


@BOTH
def test_a_host_may_fork_before_the_template_is_there(way, tmp_path):
    code = """
held()
pid = os.fork()
if not pid:
    with pool:
        assert isinstance(first.exception(0), RuntimeError), first
        assert pool.submit(calls.double, 5).result(20) == 10
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
let_go()
assert first.result(20) == 4
pool.shutdown()
"""
    check(way, tmp_path, code)


def test_if_a_template_dies_at_its_start_an_interpreter_starts_the_next_one(tmp_path):
    code = """
with Pidfd.open(held()) as template:
    template.send_signal(signal.SIGKILL)
assert first.result(20) == 4
assert pool.submit(calls.double, 4).result(20) == 8
assert not pool.stats().deaths
pool.shutdown()
"""
    check("spawn", tmp_path, code)


def test_if_a_template_dies_at_its_start_while_the_pool_is_shut_down_the_tasks_are_done(tmp_path):
    code = """
pid = held()
pool.shutdown(wait=False)
with Pidfd.open(pid) as template:
    template.send_signal(signal.SIGKILL)
pool.shutdown()
assert first.result(0) == 4
"""
    check("spawn", tmp_path, code)


def test_a_forked_template_that_dies_at_its_start_breaks_the_pool(tmp_path):
    code = """
with Pidfd.open(held()) as template:
    template.send_signal(signal.SIGKILL)
error = first.exception(20)
assert isinstance(error, PoolBroken) and "ended before it was ready" in str(error), error
pool.shutdown()
"""
    check("fork", tmp_path, code)


def test_a_template_that_stays_silent_is_killed(tmp_path):
    code = (
        HOST.replace("hold()\npool", "client.START_TIMEOUT = 1.0\nhold()\npool")
        + """
template = Pidfd.open(held())
error = first.exception(20)
assert isinstance(error, PoolBroken) and "did not start a template within 1 s" in str(error), error
assert template.wait(20)
pool.shutdown()
"""
    )
    done = run_python(code, "spawn", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("program", ["/nowhere/setsid", "/bin/false", "/bin/true"])
def test_without_a_program_that_detaches_an_interpreter_is_the_launcher(program, tmp_path):
    code = f"""
import sys
from pidfdpool import PidfdPoolExecutor
from pidfdpool.template import launch
from tests import calls

launch._DETACHING = {program!r}
with PidfdPoolExecutor(2) as pool:
    assert pool.submit(calls.double, 2).result(20) == 4
    assert pool.prestart(2) == 2
    assert not pool.stats().deaths
"""
    done = run_python(code)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_interpreter_of_a_quick_start_sees_the_environment_of_the_host(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(f"""
import os, sys
if "not.an identifier" in os.environ:
    with open({str(tmp_path / "seen")!r}, "a") as file:
        print(sorted(os.environb.items()), file=file)
""")
    code = """
import os
from pidfdpool import PidfdPoolExecutor
from tests import calls

os.environ["not.an identifier"] = "yes"
for name in ("PWD", "OLDPWD", "SHLVL", "_"):
    os.environ.pop(name, None)
with PidfdPoolExecutor(1) as pool:
    print(sorted(os.environb.items()))
    assert pool.submit(calls.double, 2).result(20) == 4
"""
    done = run_python(code, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "seen").read_text() == done.stdout
