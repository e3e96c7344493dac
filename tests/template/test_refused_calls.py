"""Sandboxes that refuse a system call, by a real seccomp filter: the pool does without it, or says at once which.

The names come from traces of host, template and workers. What the interpreter or the C library cannot live without
(mmap, futex, openat and the like) is left out.
"""

from __future__ import annotations

import platform

import pytest

from tests.conditions import run_python

# The numbers on x86_64 and on aarch64. None: there is no such call.
OPTIONAL = {
    "eventfd2": (290, 19),
    "fallocate": (285, 47),
    "getpeername": (52, 205),
    "getppid": (110, 173),
    "getsockname": (51, 204),
    "getsockopt": (55, 209),
    "ioctl": (16, 29),
    "madvise": (28, 233),
    "memfd_create": (319, 279),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "rt_sigaction": (13, 134),
    "sched_getaffinity": (204, 123),
    "setpgid": (109, 154),
    "setsid": (112, 157),
    "sigaltstack": (131, 132),
    "wait4": (61, 260),
    "waitid": (247, 95),
}
NEEDED = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "dup2": (33, None),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, None),
    "execve": (59, 221),
    "fcntl": (72, 25),
    "getpid": (39, 172),
    "pipe2": (293, 59),
    "recvfrom": (45, 207),
    "recvmsg": (47, 212),
    "rt_sigprocmask": (14, 135),
    "sendmsg": (46, 211),
    "sendto": (44, 206),
    "socketpair": (53, 199),
}
# With ENOSYS the C library makes threads by an older call; and without execve a host can still be forked.
NOT_NEEDED = {("clone3", "ENOSYS"), ("execve", "ENOSYS")}
SAID = {"clone3": "can't start new thread"}  # by Python itself

HOST = """
import concurrent.futures.process, ctypes, errno, os, signal, sys, time, traceback
import pidfdpool.executor.mapping, pidfdpool.template.preimports
from pidfdpool import PidfdPoolExecutor, TaskTimeout, WorkerCrashed
from pidfdpool.pidfd import capability
from tests.seccomp import deny

def double(value):
    return value + value

def use(way):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        assert pool.submit(double, 4).result(timeout=20) == 8
        assert list(pool.map(abs, range(-50, 0), timeout=20)) == list(range(50, 0, -1))
        assert isinstance(pool.submit(os._exit, 3).exception(timeout=20), WorkerCrashed)
        assert isinstance(pool.options(timeout=0.05).submit(signal.pause).exception(timeout=20), TaskTimeout)
        assert pool.submit(double, bytes(200_000)).result(timeout=20) == bytes(400_000)
    return "works"

def observe(number, refusal, way):
    deny({number}, refusal)
    capability._known.clear()  # it was found out before
    try:
        return use(way)
    except AssertionError:
        return traceback.format_exc()
    except Exception as error:
        return str(error)

def run(*arguments):
    "Let a child do it: what is refused is refused for good."
    reader, writer = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        try:
            said = observe(*arguments)
        except BaseException:
            said = traceback.format_exc()
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as said:
        print(repr(said.read()))
    os.waitpid(pid, 0)

use("fork")  # whatever is loaded late is loaded now
for way, name in (("spawn", "EPERM"), ("fork", "ENOSYS")):
    run(int(sys.argv[1]), getattr(errno, name), way)
"""


def observed(numbers: tuple[int | None, int | None]) -> dict[str, str]:
    machine = platform.machine()
    if machine not in ("x86_64", "aarch64"):
        pytest.skip(f"the numbers of {machine} are not known here")
    number = numbers[machine == "aarch64"]
    if number is None:
        pytest.skip(f"there is no such call on {machine}")
    done = run_python(HOST, str(number), flags=["-W", "ignore"], timeout=50)
    said = [eval(line) for line in done.stdout.splitlines()]
    assert (done.returncode, len(said)) == (0, 2), done.stderr
    return dict(zip(("EPERM", "ENOSYS"), said, strict=True))


@pytest.mark.costly_table
@pytest.mark.parametrize("call", OPTIONAL)
def test_a_pool_does_without(call):
    assert observed(OPTIONAL[call]) == {"EPERM": "works", "ENOSYS": "works"}


@pytest.mark.costly_table
@pytest.mark.parametrize("call", NEEDED)
def test_a_pool_says_at_once_what_it_cannot_do_without(call):
    for refusal, said in observed(NEEDED[call]).items():
        if (call, refusal) in NOT_NEEDED:
            assert said == "works"
        else:
            assert SAID.get(call, call) in said
            assert "times in a row" not in said, "it tried again and again"
