"""On systems without Linux's calls: the package can be imported, what needs no pool works, and the rest says why not.

A process of Linux pretends: `sys.platform` is another, and what only Linux has is hidden before the import. Some
modules cannot be imported, as on Windows.
"""

from __future__ import annotations

import textwrap

import pytest

import pidfdpool
from tests.conditions import run_python

PRETEND = """
import os, select, signal, sys, socket, mmap, asyncio, logging.handlers, multiprocessing, concurrent.futures.process
import cloudpickle
platform = sys.argv[1]
NEW = [name for name in sys.modules if name.startswith("pidfdpool")]
assert NEW == [], NEW
sys.platform = platform
HIDDEN = {
    os: ["pidfd_open", "eventfd", "eventfd_read", "eventfd_write", "memfd_create", "sched_getaffinity", "waitid",
         "P_PIDFD", "posix_spawn", "MFD_CLOEXEC", "EFD_CLOEXEC", "setns", "unshare", "copy_file_range"],
    signal: ["pidfd_send_signal", "SIGRTMIN", "SIGRTMAX", "SIGPWR", "SIGSTKFLT", "sigtimedwait", "sigwaitinfo"],
    select: ["epoll"],
    socket: ["recv_fds", "send_fds", "AF_UNIX", "SCM_RIGHTS", "MSG_CMSG_CLOEXEC"],
}
GONE = {"darwin": [], "freebsd14": [], "emscripten": ["fcntl", "resource", "_multiprocessing"],
        "win32": ["fcntl", "posix", "resource", "termios", "pwd", "grp"]}[platform]
if platform == "win32":
    HIDDEN[os] += ["fork", "forkpty", "register_at_fork", "getppid", "sysconf", "set_blocking", "WIFEXITED"]
    HIDDEN[signal] += ["SIGKILL", "SIGBUS", "SIGALRM", "SIGCHLD", "SIGSTOP", "SIGUSR1", "pthread_sigmask"]
for module, names in HIDDEN.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
import _signal
for name in HIDDEN[signal]:
    if hasattr(_signal, name):
        delattr(_signal, name)

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in GONE:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

if platform == "emscripten":  # these cannot be imported there, as they need _multiprocessing
    GONE_WITH_IT = [name for name in sys.modules if name.startswith("multiprocessing.")]
    for name in ["concurrent.futures.process", *GONE_WITH_IT]:
        del sys.modules[name]
    del concurrent.futures.process, sys.modules["multiprocessing"], multiprocessing
for name in GONE:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Missing())
"""
PLATFORMS = ("darwin", "win32", "freebsd14", "emscripten")
NEED_LINUX = {"Future", "Options", "PidfdPoolExecutor", "ProcessPoolExecutor", "WorkerName", "get_shared_executor"}


def run_elsewhere(platform: str, code: str) -> str:
    """Run a script that believes to be on this platform, and return what it printed."""
    ran = run_python(f"{PRETEND}\n{textwrap.dedent(code)}", platform)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
    return ran.stdout


@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_needs_linux_says_so_and_what_there_is_instead(platform):
    names = sorted(NEED_LINUX)
    modules = ["multiprocessing", "joblib", "cli", "executor.futures", "executor.options", "template.client"]
    run_elsewhere(
        platform,
        f"""
        import pidfdpool

        def refuses(call, *arguments):
            try:
                call(*arguments)
            except ImportError as error:
                for told in (platform, "get_executor()", "SerialExecutor", "concurrent.futures.ProcessPoolExecutor"):
                    assert told in str(error), error
                assert error.name == "pidfdpool"
            else:
                raise SystemExit(f"{{arguments}} is there")

        for name in {names}:
            assert name not in dir(pidfdpool), name
            refuses(getattr, pidfdpool, name)
            refuses(exec, f"from pidfdpool import {{name}}")
        for name in {modules}:
            refuses(__import__, f"pidfdpool.{{name}}")
        refuses(exec, "from pidfdpool.pidfd import Pidfd")
        refuses(pidfdpool.get_executor, "pidfdpool")
        try:
            pidfdpool.NoSuchName
        except AttributeError:
            pass
        """,
    )


@pytest.mark.parametrize("platform", PLATFORMS)
def test_all_other_names_are_there(platform):
    names = sorted(set(pidfdpool.__all__) - NEED_LINUX)
    printed = run_elsewhere(
        platform,
        f"""
        import pidfdpool
        for name in {names}:
            assert getattr(pidfdpool, name) is not None
        exec("from pidfdpool import *")
        print(*sorted(pidfdpool.__all__))
        """,
    )
    assert printed.split() == names


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("check_pickling", [False, True])
def test_a_serial_executor_works(platform, check_pickling):
    run_elsewhere(
        platform,
        f"""
        import logging, pickle, threading
        import pidfdpool
        from pidfdpool import SerialExecutor, PoolBroken, CallNotSendable
        from pidfdpool.pidfd import ExitStatus

        def square(number):
            return number * number

        class Point:
            def __init__(self, x):
                self.x = x

        def fail():
            raise LookupError("no")

        async def main(executor):
            assert await executor.run(square, 4) == 16
            return [each async for each in executor.amap(square, [1, 2])]

        def outcome_of(coroutine):  # nothing in it waits, so no event loop is needed
            try:
                coroutine.send(None)
            except StopIteration as end:
                return end.value

        logging.getLogger("concurrent.futures").addHandler(logging.NullHandler())
        with SerialExecutor(
            2, "spawn", initializer=square, initargs=(2,), check_pickling={check_pickling}, preload="json", timeout=5
        ) as executor:
            assert executor.submit(square, 3).result() == 9
            assert executor.submit(lambda x: x + 1, 3).result() == 4
            assert executor.submit(Point, 3).result().x == 3
            assert type(executor.submit(Point, 3).result()) is Point
            assert list(executor.map(square, range(4))) == [0, 1, 4, 9]
            assert type(executor.submit(fail).exception()) is LookupError
            assert executor.options(retries=1, retry_on=LookupError, retry_backoff=0).submit(fail).attempt == 2
            assert executor.submit(lambda: pidfdpool.current_task().attempt).result() == 1
            assert outcome_of(main(executor)) == [1, 4]
            assert executor.prestart() == 2 and executor.stats().size == 2 and executor.workers() == ()
            refused = executor.submit(square, threading.Lock()).exception()
            assert type(refused) is (CallNotSendable if {check_pickling} else TypeError), repr(refused)
            pidfdpool.heartbeat()
            pidfdpool.unhealthy("no")
            repr(executor)
        error = SerialExecutor(1, initializer=fail, check_pickling={check_pickling}).submit(square, 1).exception()
        assert type(error) is PoolBroken
        death = pidfdpool.Death(0, 1, 2, pidfdpool.Cause.CRASH, ExitStatus(signal=9), 1.0, 0, attempt=1)
        assert pickle.loads(pickle.dumps(death)) == death
        assert str(death)
        crash = pidfdpool.WorkerCrashed("it died", task="work", task_id=1, attempt=1, deaths=(death,))
        assert pickle.loads(pickle.dumps(crash)).exit_status.signal == 9
        assert pidfdpool.Policy(3).retries == 0
        assert SerialExecutor()._max_workers >= 1
        """,
    )


def test_where_there_are_no_processes_get_executor_is_serial():
    printed = run_elsewhere(
        "emscripten",
        """
        import pidfdpool
        executor = pidfdpool.get_executor("auto", 2, timeout=3, mp_context="spawn", initializer=abs, initargs=(1,))
        print(type(executor).__name__, executor.submit(abs, -1).result())
        try:
            pidfdpool.get_executor("standard")
        except (ImportError, NotImplementedError):  # the former before Python 3.15
            print("refused")
        """,
    )
    assert printed.splitlines() == ["SerialExecutor 1", "refused"]


def test_get_executor_finds_what_there_is():
    printed = run_elsewhere(
        "darwin",
        """
        import pidfdpool, concurrent.futures
        one = pidfdpool.get_executor("auto", 2, prefetch=0)
        print(type(one).__name__, one._max_workers)
        one.shutdown()
        try:
            pidfdpool.get_executor(timeout=3)
        except TypeError as error:
            print("timeout is 3" in str(error) and "this is not Linux" in str(error))

        def refuse(*arguments):
            raise OSError("no semaphores here")

        concurrent.futures.process._check_system_limits = refuse
        print(type(pidfdpool.get_executor(timeout=3)).__name__)
        """,
    )
    assert printed.splitlines() == ["ProcessPoolExecutor 2", "True", "SerialExecutor"]
