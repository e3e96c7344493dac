"""What a host has set for its interpreter, standard streams and limits: the pool works, and changes nothing."""

from __future__ import annotations

import os

import pytest

from tests.hosts.trapping import trap

SECTION = "Settings of the host"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")

# ---- the interpreter --------------------------------------------------------------------------------------------

# What is set, and the expression that tells whether it is as it was.
SETTINGS = {
    "tracemalloc is on": ("import tracemalloc; tracemalloc.start(5)", "tracemalloc.is_tracing()"),
    "gc.disable()": ("gc.disable()", "not gc.isenabled()"),
    "gc.DEBUG_SAVEALL": ("gc.set_debug(gc.DEBUG_SAVEALL)", "gc.get_debug() == gc.DEBUG_SAVEALL"),
    "gc.set_threshold(1)": ("gc.set_threshold(1)", "gc.get_threshold()[0] == 1"),
    "gc.freeze()": ("gc.freeze()", "gc.get_freeze_count() > 1000"),
    "a low recursion limit": ("sys.setrecursionlimit(150)", "sys.getrecursionlimit() == 150"),
    "a high recursion limit": ("sys.setrecursionlimit(10**6)", "sys.getrecursionlimit() == 10**6"),
    "warnings are errors": ("import warnings; warnings.simplefilter('error')", "warnings.filters[0][0] == 'error'"),
    "hooks that fail the host": (
        """
def fail(*_):
    observed("a hook of the host's was called")
sys.excepthook = threading.excepthook = sys.unraisablehook = fail
""",
        "sys.excepthook is threading.excepthook is sys.unraisablehook is fail",
    ),
    "a default timeout for sockets": (
        "import socket; socket.setdefaulttimeout(0.01)",
        "socket.getdefaulttimeout() == 0.01",
    ),
    "a default for new threads' stacks": ("threading.stack_size(1 << 18)", "threading.stack_size() == 1 << 18"),
    "no more int digits than 640": ("sys.set_int_max_str_digits(640)", "sys.get_int_max_str_digits() == 640"),
    "logging is configured to fail": (
        """
import logging
class Failing(logging.Handler):
    def emit(self, record):
        if record.name.startswith("pidfdpool") and record.levelno < logging.WARNING:
            return
        raise OSError("the log is full")
logging.raiseExceptions = False
logging.getLogger().addHandler(Failing())
""",
        "len(logging.getLogger().handlers) == 1",
    ),
}


@pytest.mark.costly_table
@pytest.mark.case(SECTION, "set before the pool's start", ways="both")
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_of_the_interpreter(contender, setting):
    code, as_it_was = SETTINGS[setting]
    trap(contender, f"{code}\nuse()\nexpect({as_it_was}, 'it is set no more')\n")


# ---- standard streams and other descriptors ----------------------------------------------------------------------

CLOSED = {"0": (0,), "1": (1,), "2": (2,), "0 to 2": (0, 1, 2)}

STREAMS = """
def shout():
    for _ in range(200):
        print("from a worker " * 100)
        print(" from a worker" * 100, file=sys.stderr)
    return True
"""


@pytest.mark.case(
    SECTION, "standard streams are closed; workers print; the host then opens files in their place", ways="both"
)
@pytest.mark.parametrize("closed", CLOSED)
def test_closed_standard_streams(contender, closed, tmp_path):
    """What the host opens afterwards gets these numbers, and only if no descriptor of the pool's has taken them."""
    trap(
        contender,
        f"""
        {STREAMS.replace(chr(10), chr(10) + 8 * " ")}
        closed = {CLOSED[closed]!r}
        for fd in closed:
            os.close(fd)
        with ProcessPoolExecutor(2) as pool:
            compute(pool)
            expect(result(pool.submit(shout)), "printing in a worker fails")
            for fd in closed:
                try:
                    what = os.readlink(f"/proc/self/fd/{{fd}}")
                except OSError:
                    continue
                observed("descriptors of the pool have the numbers of standard streams\\n" + what)
            for fd in closed:
                own = os.open({str(tmp_path)!r} + f"/{{fd}}", os.O_CREAT | os.O_RDWR)
                expect(own == fd, "the numbers of standard streams are taken", own)
                os.write(own, b"the host's")
            compute(pool)
            result(pool.submit(shout))
        use()
        for fd in closed:
            content = open({str(tmp_path)!r} + f"/{{fd}}").read()
            expect(content == "the host's", "something else is written into the host's files", content[:100])
        """,
        noise=True,
    )


@pytest.mark.case(
    SECTION, "the host turns into a daemon after the pool's start, and puts /dev/null on 0 to 2", ways="both"
)
def test_streams_that_are_replaced(contender):
    trap(
        contender,
        """
        for fd in (0, 1, 2):
            os.close(fd)
        with ProcessPoolExecutor(2) as pool:
            compute(pool)
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            compute(pool)
            lose(pool, tasks.leave, 3)
            if OURS:
                go_on(pool)
        use()
        """,
    )


# ---- limits --------------------------------------------------------------------------------------------------------


@pytest.mark.case(SECTION, "64 descriptors at most", ways="both")
@pytest.mark.parametrize("workers", [2, 8])
def test_few_descriptors(contender, workers):
    trap(contender, f"resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\nuse({workers})\n")


@pytest.mark.case(SECTION, "too few descriptors for 8 workers: fewer work, or an error says why", ways="both")
@pytest.mark.parametrize("limit", [16, 20, 26, 32])
def test_too_few_descriptors(contender, limit):
    trap(
        contender,
        f"""
        import logging
        logging.disable(logging.CRITICAL)
        for fd in range(3, 256):
            if fd != trapped._told:
                try:
                    os.close(fd)
                except OSError:
                    pass
        resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
        try:
            with ProcessPoolExecutor(8) as pool:
                for future in [pool.submit(tasks.sleep, 0.01) for _ in range(16)]:
                    result(future)
        except Exception as error:
            text = f"{{error!r}} {{error.__cause__!r}}"
            expect("descriptor" in text or "open files" in text, "an error does not say that descriptors lack", text)
        """,
        noise=contender == "standard",
    )


@pytest.mark.case(
    SECTION, "all descriptors are used up at the first submit, and free again at the next one", ways="both"
)
def test_descriptors_used_up_for_a_while(contender):
    trap(
        contender,
        """
        import logging
        from concurrent.futures.process import BrokenProcessPool
        logging.disable(logging.CRITICAL)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        pool = ProcessPoolExecutor(2)
        held = []
        try:
            while True:
                held.append(os.dup(1))
        except OSError:
            pass
        try:
            first = pool.submit(tasks.double, 2)
        except OSError:
            first = None
        for fd in held:
            os.close(fd)
        if first is not None:
            try:
                result(first)
            except BrokenProcessPool:
                pass
        compute(pool)
        pool.shutdown()
        use()
        """,
        noise=contender == "standard",
    )


LIMITS = {
    "no core files": "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))",
    "no byte may be written to files": "resource.setrlimit(resource.RLIMIT_FSIZE, (0, -1))",
    "no memory may be locked": "resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))",
    "no message queues": "resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, 0))",
    "no signals may be queued": "resource.setrlimit(resource.RLIMIT_SIGPENDING, (0, 0))",
    "no file locks, which the kernel does not look at": "resource.setrlimit(10, (0, 0))",
    "a stack of 256 KiB": "resource.setrlimit(resource.RLIMIT_STACK, (1 << 18, 1 << 18))",
}


@pytest.mark.costly_table
@pytest.mark.case(SECTION, "a limit is set for the host", ways="both")
@pytest.mark.parametrize("limit", LIMITS)
def test_limits(contender, limit):
    trap(
        contender,
        f"""
        {LIMITS[limit]}
        try:
            use()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))  # or it could not tell what was wrong
        """,
    )


@needs_root
@pytest.mark.case(SECTION, "no more processes than a few: fewer workers, or an error says why", ways="both")
@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_few_processes(contender, most):
    """The limit counts the threads of a user's processes, so the host is a user of its own.

    Where there is room for the template but for no worker, the pool tries for 30 s before it breaks.
    """
    patience = 10 if contender == "standard" else 45
    trap(
        contender,
        f"""
        import logging
        logging.disable(logging.CRITICAL)
        from tests.hosts.programs import privileges
        privileges.become(54321)
        resource.setrlimit(resource.RLIMIT_NPROC, ({most}, {most}))
        pool = None
        try:
            pool = ProcessPoolExecutor(4)
            for future in [pool.submit(tasks.sleep, 0.05) for _ in range(8)]:
                future.result({patience})
            pool.shutdown()
        except TimeoutError:
            observed("a task hangs")
        except Exception as error:
            text = f"{{error!r}} {{error.__cause__!r}}".lower()
            words = ("temporarily unavailable", "new thread", "could not fork")
            expect(any(word in text for word in words), "an error does not say why", text)
        tell("over")
        os._exit(0)
        """,
        noise=contender == "standard",
    )
