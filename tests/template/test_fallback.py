"""Without pidfds: the same promises, kept by pipes and the template. And with kernels that know half of pidfds."""

from __future__ import annotations

import signal

import pytest

from tests.conditions import eventually, is_alive, marked, processes_of_this_run, run_python, start_python

FORCED = {
    "environment": "import os; os.environ['PIDFDPOOL_NO_PIDFD'] = '1'",
    "ENOSYS": "import errno; from tests.seccomp import *; deny({PIDFD_OPEN, PIDFD_SEND_SIGNAL}, errno.ENOSYS)",
    "EPERM": "import errno; from tests.seccomp import *; deny({PIDFD_OPEN}, errno.EPERM)",
    "no-signal": "import errno; from tests.seccomp import *; deny({PIDFD_SEND_SIGNAL}, errno.EPERM)",
}


@pytest.fixture(params=FORCED)
def forced(request):
    return FORCED[request.param]


def run_host(forced, code, *arguments):
    prelude = f"""
{forced}
import os, signal, sys, threading, time
from pidfdpool import *
from pidfdpool.pidfd import capabilities
from tests import calls
from tests.conditions import children, eventually, is_alive, is_zombie, open_descriptors
assert not capabilities().usable
way = sys.argv[1]
"""
    done = run_python(prelude + code, *arguments, flags=("-W", "ignore:This process:DeprecationWarning"))
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_results_and_crashes_are_the_same(forced, way):
    run_host(
        forced,
        """
with PidfdPoolExecutor(2, mp_context=way) as pool:
    assert [f.result() for f in [pool.submit(calls.double, n) for n in range(100)]] == [2 * n for n in range(100)]
    assert pool.submit(calls.leave, 3).exception(timeout=20).exit_status.code == 3
    assert pool.submit(calls.die, signal.SIGKILL).exception(timeout=20).exit_status.signal == signal.SIGKILL
    assert pool.submit(len, bytes(3_000_000)).result() == 3_000_000
    template = pool.submit(os.getppid).result()
    assert children(os.getpid()) == []
    eventually(lambda: not any(map(is_zombie, children(template))), "the dead are reaped")
# A pipe closes a moment before its holder is gone, so here shutdown cannot promise more than that.
eventually(lambda: not is_alive(template), "the template is gone")
assert set(open_descriptors()) <= {0, 1, 2}, open_descriptors()
""",
        way,
    )


def test_running_workers_can_be_killed_with_all_that_they_started(forced, way):
    run_host(
        forced,
        """
def start_child(path):
    import subprocess
    child = subprocess.Popen(["sleep", "1000"])
    with open(path, "w") as file:
        file.write(str(child.pid))
    time.sleep(60)

import tempfile
folder = tempfile.mkdtemp()
path = folder + "/pid"
pool = PidfdPoolExecutor(1, mp_context=way)
future = pool.submit(start_child, path)
child = eventually(lambda: os.path.exists(path) and open(path).read(), "the child runs")
pool.kill_workers()
assert future.exception(timeout=20).exit_status.signal == signal.SIGKILL
eventually(lambda: not is_alive(int(child)), "the child is dead")
pool.shutdown()
""".replace("open(path).read()", "__import__('pathlib').Path(path).read_text()"),
        way,
    )


def test_recycling_forks_of_the_host_and_a_dead_template(forced):
    run_host(
        forced,
        """
with PidfdPoolExecutor(2, max_tasks_per_child=2) as pool:
    assert list(pool.map(calls.double, range(20))) == [2 * n for n in range(20)]
    pid = os.fork()
    if not pid:
        assert pool.submit(calls.double, 1).result(timeout=20) == 2
        pool.shutdown()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    os.kill(pool.submit(os.getppid).result(), signal.SIGKILL)
    eventually(lambda: pool.submit(calls.double, 1).exception(timeout=20) is None, "the pool has recovered")
""",
        "spawn",
    )


def test_nobody_outlives_the_host(forced, way, tmp_path):
    environment = marked("fallback-death")
    code = f"""
{forced}
import os, sys, time
from pidfdpool import PidfdPoolExecutor
from tests import calls
pool = PidfdPoolExecutor(3, mp_context=sys.argv[1])
pool.submit(calls.double, 1).result()
for kind in ("sleep", "spin", "regex"):
    pool.submit(calls.touch_and, f"{{sys.argv[2]}}/{{kind}}", kind)
while sum(os.path.getsize(f"{{sys.argv[2]}}/{{name}}") > 0 for name in os.listdir(sys.argv[2])) < 3:
    time.sleep(0.01)
print("ready", flush=True)
time.sleep(60)
"""
    with start_python(code, way, str(tmp_path), env=environment) as host:
        assert host.stdout.readline() == "ready\n", host.stderr.read()
        workers = [int((tmp_path / kind).read_text()) for kind in ("sleep", "spin", "regex")]
        host.send_signal(signal.SIGKILL)
        host.wait()
        eventually(lambda: not any(map(is_alive, workers)), "workers are gone")
        eventually(lambda: not processes_of_this_run(environment["PIDFDPOOL_TEST_RUN"]), "all is gone")


def test_a_kernel_that_cannot_signal_groups_still_leaves_no_descendant(way, tmp_path):
    code = """
import errno, os, signal, sys, time
from tests.seccomp import *
deny({PIDFD_SEND_SIGNAL}, errno.EINVAL, when_argument_3_is=4)
from pidfdpool import *
from pidfdpool.pidfd import capabilities
from tests.conditions import eventually, is_alive
assert capabilities().usable and not capabilities().group_signal

def start_and_die(path):
    import subprocess
    child = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE)
    with open(path, "w") as file:
        file.write(f"{child.pid} {child.stdout.readline().decode()}")
    os.kill(os.getpid(), signal.SIGKILL)

with PidfdPoolExecutor(1, mp_context=sys.argv[1]) as pool:
    assert pool.submit(start_and_die, sys.argv[2]).exception(timeout=20).exit_status.signal == signal.SIGKILL
    with open(sys.argv[2]) as file:
        pids = [int(pid) for pid in file.read().split()]
    assert len(pids) == 2
    eventually(lambda: not any(map(is_alive, pids)), "the descendants are dead")
    pool.submit(time.sleep, 60)
    pool.kill_workers()
"""
    done = run_python(code, way, str(tmp_path / "pids"))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_lack_of_descriptors_is_not_taken_for_a_lack_of_pidfds():
    done = run_python(
        """
import os, resource, errno
from pidfdpool.pidfd import capabilities, PidfdError
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, limits[1]))
try:
    capabilities().open
except PidfdError as error:
    assert error.errno == errno.EMFILE and error.pid == os.getpid()
    print("raised")
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
print(capabilities().open)
"""
    )
    assert (done.stdout, done.stderr) == ("raised\nTrue\n", "")
