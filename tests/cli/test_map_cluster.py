"""`map --cluster`, with a module in the place of `pidfdpool.dask` that tells what it was asked for."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

# Runs the command line with such a module. What is in front of it defines open_cluster.
RUN = """
import os, sys, types
from pidfdpool import PidfdPoolExecutor, PoolBroken
from pidfdpool.cli import main

{code}

class Cluster(PidfdPoolExecutor):
    def shutdown(self, wait=True, *, cancel_futures=False):
        super().shutdown(wait, cancel_futures=cancel_futures)
        print("closed", file=sys.stderr)

if "open_cluster" in globals():
    sys.modules["pidfdpool.dask"] = types.SimpleNamespace(open_cluster=open_cluster)
sys.exit(main(sys.argv[1:]))
"""
# Workers of a cluster have current directories of their own, and have not loaded anything of the host's.
LOCAL = """
def be_elsewhere():
    here = os.getcwd()
    os.chdir("/")
    sys.path[:] = [path for path in sys.path if path not in ("", here)]

def open_cluster(address, **options):
    print("opened", address, sorted(options.items()), file=sys.stderr)
    return Cluster(2, initializer=be_elsewhere, **options)
"""


@pytest.fixture
def cluster(command):
    def run(code, *arguments, data=b""):
        script = RUN.format(code=textwrap.dedent(code))
        line = [sys.executable, "-c", script, "map", *arguments, "--cluster", "tcp://there:8786"]
        return subprocess.run(line, input=data, capture_output=True, check=False, timeout=50, **command.options({}))

    return run


NUMBERS = b"".join(b"%d\n" % number for number in range(20_000))


def test_the_same_job_on_a_cluster(cluster):
    done = cluster(LOCAL, "jobs:same", data=NUMBERS)
    assert (done.returncode, done.stdout) == (0, NUMBERS)
    assert done.stderr == b"opened tcp://there:8786 []\nclosed\n"


def test_options_and_errors_as_locally(cluster):
    done = cluster(
        LOCAL, "jobs:die_on_three", "--max-memory", "1G", "--timeout", "30", "--retries", "1", "--on-error", "skip",
        data=b"1\n3\n4\n",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b"1\n4\n")
    opened, closed, failed = done.stderr.decode().splitlines()
    assert opened == (
        "opened tcp://there:8786 [('hard_memory_per_child', 1073741824), ('max_memory_per_child', 805306368)]"
    )
    assert closed == "closed"
    assert failed.startswith("1 of 3 documents failed and were skipped; the first: <stdin>:2: WorkerCrashed: ")


def test_a_function_that_is_not_there(cluster):
    code = """
    def open_cluster(address, **options):
        import jobs
        del jobs.same  # before workers are forked, which then have none
        return Cluster(2, mp_context="fork")
    """
    done = cluster(code, "jobs:same", data=b"1\n")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"a worker of the cluster cannot load the function: module 'jobs' has no attribute 'same'" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("code", "returncode", "complaint"),
    [
        ("sys.modules['pidfdpool.dask'] = None", 2, "argument --cluster: import of pidfdpool.dask halted"),
        (
            "def open_cluster(address): raise TimeoutError(f'nothing answers at {address}')",
            1,
            "argument --cluster: nothing answers at tcp://there:8786",
        ),
        (
            "def open_cluster(address): raise OSError('nobody there')",
            1,
            "argument --cluster: cannot use 'tcp://there:8786': OSError: nobody there",
        ),
        (
            "def open_cluster(address): raise ValueError(f'address must be that of a scheduler, not {address!r}')",
            2,
            "argument --cluster: address must be that of a scheduler, not 'tcp://there:8786'",
        ),
    ],
    ids=["not installed", "not reachable", "not there", "no address"],
)
def test_a_cluster_that_cannot_be_used(cluster, code, returncode, complaint):
    done = cluster(code, "jobs:same", data=b"1\n")
    assert (done.returncode, done.stdout) == (returncode, b"")
    assert complaint in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("error", "complaint"),
    [
        ("PoolBroken('the scheduler is gone')", "the pool broke: the scheduler is gone"),
        ("OSError('the scheduler is gone')", "the cluster 'tcp://there:8786' failed: OSError: the scheduler is gone"),
    ],
)
def test_a_cluster_that_goes_away(cluster, error, complaint):
    code = f"""
    class Gone(PidfdPoolExecutor):
        def submit(self, *_, **__):
            raise {error}

    def open_cluster(address):
        return Gone(1)
    """
    done = cluster(code, "jobs:same", data=b"1\n")
    assert (done.returncode, done.stdout, done.stderr.decode()) == (1, b"", complaint + "\n")


def test_an_executor_that_cannot_kill_is_shut_down(cluster):
    code = """
    class Plain:
        def options(self, **_):
            return self

        def submit(self, *_):
            raise PoolBroken("gone")

        def shutdown(self, wait=True, *, cancel_futures=False):
            print("shutdown", wait, cancel_futures, file=sys.stderr)

    def open_cluster(address):
        return Plain()
    """
    done = cluster(code, "jobs:same", data=b"1\n")
    assert done.returncode == 1
    assert done.stderr == b"shutdown False True\nshutdown True False\nthe pool broke: gone\n"
