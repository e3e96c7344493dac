"""Where a host is: directories that are gone, file systems that lack something, an environment that is odd.

And who it is: users without rights, before and after the pool's start.
"""

from __future__ import annotations

import os

import pytest

from tests.hosts.trapping import trap

SECTION = "Where the host is, and who"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")

# ---- directories and file systems ---------------------------------------------------------------------------------

DIRECTORIES = {
    "gone": "folder = tempfile.mkdtemp(); os.chdir(folder); os.rmdir(folder)",
    "closed to everybody": (
        "folder = tempfile.mkdtemp(); os.chdir(folder); os.chmod(folder, 0); privileges.become(54321); "
        "privileges.want_no_new_privileges()"
    ),
}


@pytest.mark.case(SECTION, "the current directory is", ways="both")
@pytest.mark.parametrize("directory", DIRECTORIES)
def test_a_strange_current_directory(contender, directory):
    if "closed" in directory and os.geteuid() != 0:
        pytest.skip("only root may become somebody else")
    code = "import tempfile\nfrom tests.hosts.programs import privileges\n"
    trap(contender, f"{code}{DIRECTORIES[directory]}\nuse()\n")


MOUNTS = {
    "no /proc": "places.unmount('/proc')",
    "no /dev/shm": "places.hide('/dev/shm')",
    "no /dev, so no /dev/null": "places.hide('/dev')",
    "no /sys, so no cgroups": "places.hide('/sys')",
    "no /tmp": "places.hide('/tmp')",
    "a read-only file system": "places.make_read_only('/')",
}


@needs_root
@pytest.mark.case(SECTION, "in a container there is", ways="both")
@pytest.mark.parametrize("mounts", MOUNTS)
def test_file_systems_that_lack_something(contender, mounts):
    if "/tmp" in mounts and __file__.startswith("/tmp"):
        pytest.skip("the tests themselves lie in /tmp")
    code = MOUNTS[mounts]
    trap(
        contender,
        f"""
        from tests.hosts.programs import places
        places.have_own_mounts()
        {code}
        use()
        """,
    )


@needs_root
@pytest.mark.case(
    SECTION, "the host moves into an empty root directory by chroot, and makes its pool there", ways="both"
)
def test_an_empty_root(contender, tmp_path):
    """There is no interpreter: only a fork can make a template, and otherwise the error has to say what to do."""
    trap(
        contender,
        f"""
        pool = ProcessPoolExecutor(2)
        os.chroot({str(tmp_path)!r})
        os.chdir("/")
        if os.environ["PIDFDPOOL_CONTENDER"] == "spawn":
            try:
                compute(pool)
            except Exception as error:
                expect("mp_context='fork'" in str(error), "the error does not say what to do", str(error))
                os._exit(0)
            observed("a pool works where there is no interpreter")
        compute(pool)
        error = lose(pool, tasks.leave, 3)
        if OURS:
            go_on(pool)
        pool.shutdown()
        """,
    )


@needs_root
@pytest.mark.case(SECTION, "the host moves into an empty root directory while its pool is at work", ways="both")
def test_an_empty_root_later(contender, tmp_path):
    trap(
        contender,
        f"""
        pool = ProcessPoolExecutor(2)
        compute(pool)
        os.chroot({str(tmp_path)!r})
        os.chdir("/")
        compute(pool)
        lose(pool, tasks.leave, 3)
        if OURS:
            go_on(pool)
        pool.shutdown()
        """,
    )


# ---- environment --------------------------------------------------------------------------------------------------

ENVIRONMENTS = {
    "LANG=C, LC_ALL=C": {"LANG": "C", "LC_ALL": "C"},
    "LC_ALL of no locale": {"LC_ALL": "xx_XX.nonsense"},
    "PYTHONUTF8=0 and LC_ALL=POSIX": {"PYTHONUTF8": "0", "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"},
    "PYTHONUTF8=1": {"PYTHONUTF8": "1"},
    "PYTHONIOENCODING=utf-16": {"PYTHONIOENCODING": "utf-16"},
    "PYTHONUNBUFFERED=1": {"PYTHONUNBUFFERED": "1"},
    "PYTHONFAULTHANDLER=1": {"PYTHONFAULTHANDLER": "1"},
    "PYTHONHASHSEED=0": {"PYTHONHASHSEED": "0"},
    "PYTHONMALLOC=debug": {"PYTHONMALLOC": "debug"},
    "PYTHONINSPECT and PYTHONSTARTUP": {"PYTHONINSPECT": "", "PYTHONSTARTUP": "/nowhere/startup.py"},
    "HOME, PATH, TMPDIR of nowhere": {"HOME": "/nowhere", "PATH": "", "TMPDIR": "/nowhere"},
}


@pytest.mark.costly_table
@pytest.mark.case(SECTION, "the host's environment has", ways="both")
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_environments(contender, environment):
    trap(contender, "use()", env=ENVIRONMENTS[environment])


@pytest.mark.case(SECTION, "the host has emptied its environment, PYTHONPATH included", ways="both")
def test_an_empty_environment(contender):
    trap(
        contender,
        """
        for name in list(os.environ):
            if name != "PIDFDPOOL_TEST_RUN":  # by which the test finds what is left behind
                del os.environ[name]

        def names():
            return sorted(os.environ)

        with ProcessPoolExecutor(2) as pool:
            compute(pool)
            found = set(result(pool.submit(names))) - {"PIDFDPOOL_TEST_RUN"}
            expect(found <= {"LC_CTYPE"}, "workers have in their environment what the host has not", found)
        use()
        """,
    )


@pytest.mark.case(SECTION, "a variable of the environment is larger than any program can be given", ways="both")
def test_an_environment_that_is_too_large(contender):
    trap(
        contender,
        """
        os.environ["LARGE"] = "x" * 300_000
        if os.environ["PIDFDPOOL_CONTENDER"] == "spawn":
            try:
                with ProcessPoolExecutor(2) as pool:
                    compute(pool)
            except Exception as error:
                expect("Argument list too long" in str(error), "the error does not say what is wrong", str(error))
                expect("mp_context='fork'" in str(error), "the error does not say what to do", str(error))
                os._exit(0)
            observed("a pool works with an environment that no program can be given")
        use()
        """,
    )


# ---- users and rights ---------------------------------------------------------------------------------------------


@needs_root
@pytest.mark.case(SECTION, "the host starts as root and becomes another user", ways="both")
@pytest.mark.parametrize("moment", ["before the pool's start", "after it"])
def test_a_change_of_user(contender, moment):
    if moment == "before the pool's start":
        trap(contender, "from tests.hosts.programs import privileges\nprivileges.become(54321)\nuse()\n")
        return
    trap(
        contender,
        """
        from tests.hosts.programs import privileges
        pool = ProcessPoolExecutor(2)
        compute(pool)
        privileges.become(54321)
        compute(pool)
        lose(pool, tasks.leave, 3)
        if OURS:
            go_on(pool)
        pool.shutdown()
        """,
    )


@needs_root
@pytest.mark.parametrize("way", ["spawn", "fork"])
def test_tasks_can_be_ended_by_a_host_that_became_another_user(way, tmp_path):
    """It may not signal its workers any more, which are still root's; their template may."""
    trap(
        way,
        """
        import functools
        from pidfdpool import PidfdPoolExecutor, TaskKilled, TaskTimeout
        from tests.hosts.programs import privileges
        from tests import calls
        pool = PidfdPoolExecutor(2, mp_context=os.environ["PIDFDPOOL_CONTENDER"])
        compute(pool)
        privileges.become(54321)
        error = pool.options(timeout=0.5).submit(calls.hang_in_python).exception(timeout=trapped.SECONDS)
        expect(isinstance(error, TaskTimeout), "a task is not stopped at its timeout", error)
        expect(error.stack and "hang_in_python" in error.stack, "its stack is not told", error.stack)
        running = pool.submit(time.sleep, 600)
        while not running.running():
            time.sleep(0.01)
        running.kill()
        error = running.exception(timeout=trapped.SECONDS)
        expect(isinstance(error, TaskKilled), "a task cannot be killed", error)
        stubborn = pool.options(timeout=0.3, grace=0.2).submit(calls.hang_and_ignore_sigterm)
        error = stubborn.exception(timeout=trapped.SECONDS)
        expect(isinstance(error, TaskTimeout), "a stubborn task is not stopped", error)
        compute(pool)
        pool.submit(time.sleep, 600)
        pool.kill_workers()
        pool.shutdown()
        """,
    )


RIGHTS = {
    "nothing may gain rights (PR_SET_NO_NEW_PRIVS)": "privileges.want_no_new_privileges()",
    "it may not be looked into (PR_SET_DUMPABLE 0)": "privileges.be_undumpable()",
    "the same, as another user": "privileges.become(54321); privileges.be_undumpable()",
}


@needs_root
@pytest.mark.case(SECTION, "the host has said of itself that", ways="both")
@pytest.mark.parametrize("rights", RIGHTS)
def test_rights(contender, rights):
    trap(contender, f"from tests.hosts.programs import privileges\n{RIGHTS[rights]}\nuse()\n")


# System call numbers that are the same on all architectures, and what sandboxes answer.
FILTERS = {
    "pidfd_open": ({434}, "ENOSYS"),
    "pidfd_send_signal": ({424}, "EPERM"),
    "clone3": ({435}, "ENOSYS"),
    "close_range": ({436}, "EPERM"),
    "openat2 and faccessat2": ({437, 439}, "EPERM"),
    "io_uring": ({425, 426, 427}, "EPERM"),
}


@pytest.mark.costly_table
@pytest.mark.case(SECTION, "a seccomp filter refuses system calls", ways="both")
@pytest.mark.parametrize("calls", FILTERS)
def test_filters(contender, calls):
    numbers, answer = FILTERS[calls]
    trap(contender, f"import errno\nfrom tests.seccomp import deny\ndeny({numbers}, errno.{answer})\nuse()\n")
