"""CPython's options and environment variables: the pool works under each, and what they switch holds in workers."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress

import pytest

from tests.conditions import ROOT, is_alive, run_python

pytestmark = pytest.mark.timeout(150)  # some of these make all that is imported several times as slow

HOST = f"""
import sys
sys.path[:0] = {[ROOT, *sys.path]!r}
import pidfdpool

def look():
    import _imp, faulthandler, io, os, sys, tracemalloc
    told = {{name for name in dir(sys.flags) if not name.startswith(("_", "n_"))}}
    # Workers are given the path as it is, and are never interactive.
    told -= {{"count", "index", "safe_path", "inspect", "interactive"}}
    found = {{name: getattr(sys.flags, name) for name in sorted(told)}}
    return found | {{
        "-X": dict(sys._xoptions),
        "-W": list(sys.warnoptions),
        "tracemalloc": tracemalloc.is_tracing() and tracemalloc.get_traceback_limit(),
        "pycache_prefix": sys.pycache_prefix,
        "int_max_str_digits": sys.get_int_max_str_digits(),
        "cpu_count": os.cpu_count(),
        "frozen": os.__spec__.origin,
        "check_hash_based_pycs": _imp.check_hash_based_pycs,
        "perf": getattr(sys, "is_stack_trampoline_active", bool)(),
        "unbuffered": isinstance(sys.stdout.buffer, io.FileIO),
        "debug_ranges": any(None not in place for place in look.__code__.co_positions()),
        "malloc": os.environ.get("PYTHONMALLOC"),
    }}

for way in ("spawn", "fork"):
    with pidfdpool.PidfdPoolExecutor(2, mp_context=way) as pool:
        here, there = look(), pool.submit(look).result(timeout=60)
        differing = {{name: (here[name], there[name]) for name in here if there[name] != here[name]}}
        print(way, differing, sum(pool.map(abs, range(-20, 0), timeout=60)))
"""

XOPTIONS = (
    "importtime",
    "tracemalloc=7",
    "faulthandler",
    "showrefcount",
    "int_max_str_digits=700",
    "no_debug_ranges",
    "cpu_count=3",
    "utf8=0",
    "frozen_modules=off",
    "gil=1",
    "thread_inherit_context=1",
    "context_aware_warnings=1",
    "pathconfig_warnings=0",
    "disable-remote-debug",
    "of_the_users=5",
    "of_the_users_too",
)
OPTIONS = {
    "perf": ["-X", "perf"],
    "perf_jit": ["-X", "perf_jit"],
    "lazy_imports": ["-X", "lazy_imports=all"],
    "strict": ["-X", "dev", "-X", "warn_default_encoding", "-W", "error", "-bb"],
    "isolated": ["-I", "-S", "-B", "-OO", "-u", "-q", "--check-hash-based-pycs", "never"],
    "environment ignored": ["-E", "-s", "-P", "-O", "-b", "-d", "-W", "ignore"],
    "pycache_prefix": ["-X", "pycache_prefix={folder}"],
    "all others": [part for option in XOPTIONS for part in ("-X", option)],
    "verbose": ["-v"],
}
VARIABLES = {
    "perf": {"PYTHONPERFSUPPORT": "1"},
    # Without the files that are written at the first import, all that is imported is compiled in each process.
    "compiling": {
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNODEBUGRANGES": "1",
        "PYTHONOPTIMIZE": "2",
    },
    "memory": {
        "PYTHONMALLOC": "debug",
        "PYTHONMALLOCSTATS": "1",
        "PYTHONTRACEMALLOC": "3",
    },
    "all others": {
        "PYTHONFAULTHANDLER": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONINSPECT": "1",
        "PYTHONINTMAXSTRDIGITS": "700",
        "PYTHONPROFILEIMPORTTIME": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONSTARTUP": "/nowhere/at/all.py",
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNDEFAULTENCODING": "1",
        "PYTHONWARNINGS": "error",
        "PYTHON_BASIC_REPL": "1",
        "PYTHON_CONTEXT_AWARE_WARNINGS": "1",
        "PYTHON_CPU_COUNT": "3",
        "PYTHON_JIT": "1",
        "PYTHON_LAZY_IMPORTS": "all",
        "PYTHON_THREAD_INHERIT_CONTEXT": "1",
    },
}
NOISY = ("-v", "importtime", "PYTHONMALLOCSTATS", "PYTHONPROFILEIMPORTTIME")  # they write to standard error


def maps_of_perf() -> set[str]:
    """Return the files that perf_trampoline writes, and that nobody removes."""
    return {name for name in os.listdir("/tmp") if re.fullmatch(r"(perf-\d+\.map|jit-\d+\.dump)", name)}


@pytest.fixture
def no_maps_are_left():
    before = maps_of_perf()
    yield
    for name in maps_of_perf() - before:
        if not is_alive(int(re.sub(r"\D", "", name))):
            with suppress(OSError):
                os.unlink(f"/tmp/{name}")


def run_host(flags: list[str], variables: dict[str, str]) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment = {**dict.fromkeys(set(os.environ) - set(kept), ""), **variables}
    done = run_python(HOST, flags=flags, env=environment, timeout=120)
    assert (done.returncode, done.stdout) == (0, "spawn {} 210\nfork {} 210\n"), done.stderr[-3000:]
    if not any(name in flags or name in variables for name in NOISY):
        assert done.stderr == ""


@pytest.mark.costly_table
@pytest.mark.usefixtures("no_maps_are_left")
@pytest.mark.parametrize("options", OPTIONS)
def test_options_of_the_interpreter(options, tmp_path):
    run_host([option.format(folder=tmp_path) for option in OPTIONS[options]], {})


@pytest.mark.costly_table
@pytest.mark.usefixtures("no_maps_are_left")
@pytest.mark.parametrize("variables", VARIABLES)
def test_variables_in_the_environment(variables):
    run_host([], VARIABLES[variables])


def test_what_a_starting_interpreter_opens_stays_open_and_what_it_inherits_is_closed(tmp_path):
    """Files in site-packages that are run at each start may open descriptors of their own."""
    (tmp_path / "sitecustomize.py").write_text("import os, sys; sys.opened_at_start = os.open('/dev/zero', 0)\n")
    done = run_python(
        """
import os, sys
from pidfdpool import PidfdPoolExecutor

def look():
    import os, sys
    open_here = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.lexists(entry.path)]
    return os.readlink(f"/proc/self/fd/{sys.opened_at_start}"), "/dev/full" in open_here

opened = os.open("/dev/full", os.O_WRONLY)
os.set_inheritable(opened, True)
with PidfdPoolExecutor(1) as pool:
    print(*pool.submit(look).result(timeout=20))
""",
        env={"PYTHONPATH": os.pathsep.join([str(tmp_path), ROOT])},
    )
    assert (done.stdout, done.stderr) == ("/dev/zero False\n", "")
