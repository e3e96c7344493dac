"""The system calls of a host while workers crash, are killed and are replaced, as strace(1) records them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from tests.hosts.observing import expect, run

SECTION = "System calls of the host"

BEGIN, END = "/marker-of-the-begin", "/marker-of-the-end"

LOOKS = ("stat", "newfstatat", "statx")  # for files: the markers are among those
CALLS = [
    "fork", "vfork", "clone", "clone3", "execve", "execveat",
    "wait4", "waitid", "kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal",
    "rt_sigaction", "setitimer", "timer_create", "alarm", "prctl",
    *LOOKS,
]  # fmt: skip
_LINE = re.compile(r"^(?P<thread>\d+) +(?P<what>.*)$")
_CALL = re.compile(r"^(?:<\.\.\. )?(?P<name>\w+)(?: resumed>|\()(?P<rest>.*)$")


def recorded(contender, what, folder, **options):
    """Return what the host's threads did between the markers: names of system calls, with arguments, and signals."""
    if shutil.which("strace") is None:
        pytest.skip("strace(1) is not installed")
    if subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace(1) may not trace here")
    record = folder / "record"
    trace = ["strace", "-f", "-qq", "-s", "256", "-o", str(record), "-e", f"trace=?{',?'.join(CALLS)}"]
    host = [sys.executable, "-m", "tests.hosts.programs.observed", what, BEGIN, END]
    done = run(contender, [*trace, *host], seconds=40, **options)
    expect(done.returncode == 0, "the host does not get through", done.stderr)
    return between_markers(record.read_text().splitlines())


def between_markers(lines):
    """Follow the host's threads, which are not the processes that it starts; return theirs of the lines."""
    threads = set()
    begun: dict[str, str] = {}  # by thread: what it has called and not yet come back from
    inside, found = False, []
    for line in lines:
        thread, what = _LINE.match(line).group("thread", "what")
        if not threads:
            threads.add(thread)  # the first line is the host's execve
        if thread not in threads:
            continue
        if what.endswith("<unfinished ...>"):
            begun[thread] = what
        if "resumed>" in what:
            what = begun.pop(thread, "").removesuffix("<unfinished ...>") + what.partition("resumed>")[2]
        if "CLONE_THREAD" in what and (created := re.search(r"= (\d+)", what)):
            threads.add(created[1])
        looked_for = name_of(what) in LOOKS
        if looked_for and BEGIN in what:
            inside = True
        if looked_for and END in what:
            assert inside
            return found
        if inside and not what.endswith("<unfinished ...>"):
            found.append(what)
    raise AssertionError("the markers were not passed")


def name_of(what):
    call = _CALL.match(what)
    return call["name"] if call else what.split()[1] if what.startswith("---") else what


def improper(calls):
    """Return the names of what a host's pool has no business doing there: SIGCHLD among them, which it is sent."""
    found = []
    for what in calls:
        name = name_of(what)
        if (
            name in (*LOOKS, "pidfd_send_signal", "+++")
            or (name.startswith("clone") and "CLONE_THREAD" in what)  # a thread
            or (name == "waitid" and what.startswith("waitid(P_PIDFD"))
        ):
            continue
        found.append("fork" if name.startswith("clone") or name == "vfork" else name)
    return found


@pytest.mark.case(
    SECTION, "a worker crashes, the next task runs: the host does not wait, fork, kill or get a SIGCHLD", ways="both"
)
def test_a_crash_and_what_follows(contender, tmp_path):
    found = improper(recorded(contender, "crash", tmp_path))
    expect(not found, f"seen: {', '.join(sorted(set(found)))}", found)


@pytest.mark.costly_table
@pytest.mark.parametrize("handles", ["pidfd", "fallback"])
def test_kills_timeouts_and_replacements(way, handles, tmp_path):
    calls = recorded(way, "kill", tmp_path, env={"PIDFDPOOL_NO_PIDFD": "1" if handles == "fallback" else ""})
    assert improper(calls) == []
    signals = [what for what in calls if name_of(what) == "pidfd_send_signal"]
    assert bool(signals) == (handles == "pidfd"), "that is how workers are killed, where there are pidfds"


def test_from_the_first_submit_to_the_end_the_host_forks_once_and_touches_no_handler(way, tmp_path):
    """The launcher is all that it starts, and waits for; by its pidfd."""
    calls = recorded(way, "all", tmp_path)
    found = improper(calls)
    assert found.count("fork") == 1
    assert found.count("SIGCHLD") <= 1, "the launcher's"
    assert set(found) <= {"fork", "SIGCHLD"}


def test_the_record_would_show_it(tmp_path):
    """Show that each kind of call is seen as the host's, also from its threads, and not what its children do."""
    lines = """\
10 execve("/usr/bin/python", ["python", "/marker-of-the-begin", "/marker-of-the-end"], 0x7ffc /* 3 vars */) = 0
10 clone3({flags=CLONE_VM|CLONE_THREAD, exit_signal=0}, 88 <unfinished ...>
10 <... clone3 resumed> => {parent_tid=[11]}, 88) = 11
10 wait4(-1, NULL, 0, NULL) = -1 ECHILD
10 newfstatat(AT_FDCWD, "/marker-of-the-begin", 0x7ffc, 0) = -1 ENOENT
11 kill(12, SIGTERM) = 0
11 clone(child_stack=NULL, flags=CLONE_CHILD_SETTID|SIGCHLD <unfinished ...>
12 kill(10, SIGTERM) = 0
11 <... clone resumed>, child_tidptr=0x7f) = 12
10 waitid(P_PIDFD, 7, {}, WNOHANG|WEXITED, NULL) = 0
10 waitid(P_ALL, 0, {}, WNOHANG|WEXITED, NULL) = 0
10 --- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=12} ---
11 rt_sigaction(SIGCHLD, {sa_handler=SIG_DFL}, NULL, 8) = 0
10 newfstatat(AT_FDCWD, "/marker-of-the-end", 0x7ffc, 0) = -1 ENOENT
10 kill(12, SIGTERM) = 0
""".splitlines()
    assert improper(between_markers(lines)) == ["kill", "fork", "waitid", "SIGCHLD", "rt_sigaction"]
