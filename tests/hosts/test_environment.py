"""What workers get of the host's state, and of which moment. docs/environment.md promises it."""

from __future__ import annotations

import os

import pytest

from tests.hosts.trapping import trap

SECTION = "What workers see of the host"

STATES = """
import gc, locale, logging, socket, tempfile, warnings
from tests.hosts.programs import looking
from tests.hosts.programs.looking import look

KEYS = [key for key in look() if OURS and os.environ["PIDFDPOOL_CONTENDER"] != "spawn" or key not in looking.OF_FORK]
cpus = sorted(os.sched_getaffinity(0))
folders = [os.path.realpath(tempfile.mkdtemp()) for _ in range(2)]

def be(number):
    '''Change everything that can be changed: number 0 is the first state, 1 the second.'''
    os.chdir(folders[number])
    os.umask((0o027, 0o077)[number])
    os.environ["LOOKED_AT_ALWAYS"] = f"state {number}"
    os.environ[f"LOOKED_AT_{number}"] = "there"
    os.environ.pop(f"LOOKED_AT_{1 - number}", None)
    os.environ["TZ"] = ("UTC+3", "UTC+5")[number]
    time.tzset()
    soft = (300, 200)[number]
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, ((4096, 0)[number], resource.getrlimit(resource.RLIMIT_CORE)[1]))
    os.setpriority(os.PRIO_PROCESS, 0, (3, 5)[number])
    os.sched_setaffinity(0, {cpus[number % len(cpus)]})
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(str((100, 200)[number]))
    sys.path.append(f"/nowhere/{number}")
    sys.argv[1:] = [f"argument {number}"]
    sys.setrecursionlimit((1234, 2345)[number])
    sys.setswitchinterval((0.006, 0.007)[number])
    (gc.disable, gc.enable)[number]()
    locale.setlocale(locale.LC_NUMERIC, ("C", "C")[number])
    warnings.filterwarnings("ignore", f"nothing {number}")
    logging.getLogger().setLevel((7, 9)[number])
    socket.setdefaulttimeout((70.0, 80.0)[number])
    looking.attribute = f"state {number}"

def compare(found, expected, what, keys=KEYS):
    for key in keys:
        if key == "sys.path":
            # Before what is relative there is what it meant at first; see docs/environment.md.
            rest = iter(found[key])
            expect(all(path in rest for path in expected[key]), f"{what}: sys.path", found[key])
        elif json.loads(json.dumps(found[key])) != json.loads(json.dumps(expected[key])):
            observed(f"{what}: {key}\\n{found[key]!r} is not {expected[key]!r}")

import json
"""


@pytest.mark.case(
    SECTION, "all is changed after the import and before the first submit: workers have it as it is now", ways="both"
)
def test_workers_have_what_the_host_has_at_the_first_submit(contender):
    trap(
        contender,
        STATES
        + """
be(1)
pool = ProcessPoolExecutor(2)
be(0)
expected = look()
with pool:
    for found in [result(pool.submit(look, n)) for n in range(4)]:
        compare(found, expected, "workers differ from the host")
""",
    )


@pytest.mark.case(SECTION, "all is changed after the first submit: later workers are like the first one", ways="both")
def test_later_workers_are_like_the_first_one(contender):
    trap(
        contender,
        STATES
        + """
be(0)
expected = look()
with ProcessPoolExecutor(4) as pool:
    compare(result(pool.submit(look)), expected, "the first worker differs from the host")
    be(1)
    futures = [pool.submit(tasks.sleep, 0.3) for _ in range(4)] + [pool.submit(look, n) for n in range(8)]
    for future in futures[4:]:
        compare(result(future), expected, "later workers differ from the first one")
    if OURS:
        for _ in range(5):  # those which replace others, too
            lose(pool, tasks.leave, 3)
        for found in [result(pool.submit(look, n)) for n in range(8)]:
            compare(found, expected, "a worker that replaces another one differs from the first one")
""",
    )


def test_a_template_that_replaces_another_one_has_what_the_host_has_then():
    trap(
        "spawn",
        STATES
        + """
from pidfdpool.pidfd import Pidfd
be(0)
with ProcessPoolExecutor(1) as pool:
    compare(result(pool.submit(look)), look(), "the first worker differs from the host")
    template = result(pool.submit(os.getppid))
    be(1)
    now = look()
    with Pidfd.open(template) as handle:
        handle.send_signal(signal.SIGKILL)
        handle.wait(10)
    while True:
        try:
            found = result(pool.submit(look))
            break
        except trapped.BrokenProcessPool:
            pass
    of_threads = ("nice", "affinity")  # a thread's own, and the pool thread was started in the first state
    compare(found, now, "workers of the second template", [key for key in KEYS if key not in of_threads])
""",
        noise=True,
    )


def test_in_a_fresh_interpreter_nothing_is_copied_that_only_a_fork_copies():
    trap(
        "spawn",
        STATES
        + """
fresh = look()
be(0)
with ProcessPoolExecutor(1) as pool:
    compare(result(pool.submit(look)), fresh, "a fresh interpreter is not fresh", looking.OF_FORK)
""",
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
@pytest.mark.case(SECTION, "the host has become another user with other groups", ways="both")
def test_the_user(contender):
    trap(
        contender,
        """
        from tests.hosts.programs import privileges
        from tests.hosts.programs.looking import look
        privileges.become(54321)
        with ProcessPoolExecutor(1) as pool:
            found = result(pool.submit(look))["user"]
            expect(found == look()["user"], "workers are somebody else", found)
        """,
    )


@pytest.mark.parametrize("way", ["spawn", "fork"])
def test_the_soft_limit_for_locks_carries_the_mark_and_no_other_limit_is_touched(way):
    trap(
        way,
        """
        def limits():
            return [resource.prlimit(0, number) for number in range(16)]

        with ProcessPoolExecutor(1) as pool:
            before, found = limits(), result(pool.submit(limits))
            differ = [number for number in range(16) if before[number] != found[number]]
            expect(differ == [10], "limits of workers differ", differ)
            expect(before[10][1] == found[10][1], "the hard limit is another one")
            plain = pool.options(kill_descendants=False) if hasattr(pool, "options") else pool
            expect(result(plain.submit(limits)) == before, "a task whose descendants are spared carries the mark")
        """,
    )
