"""Pools within pools: in workers of the standard library's pools, in our own workers, and several levels deep.

Workers of multiprocessing.Pool are daemonic, and multiprocessing forbids those to start processes.
"""

from __future__ import annotations

import json
import os
import re
import sys

import pytest

from tests.conditions import is_alive
from tests.hosts.observing import Observed, expect, expect_gone, expect_nothing_left, host, within
from tests.hosts.programs.web import SUM

SECTION = "pools within pools"


def command(*arguments):
    return [sys.executable, "-m", "tests.hosts.programs.nesting", *map(str, arguments)]


@pytest.fixture
def tell(contender, tmp_path):
    """Return a function that has a story told, with nothing said on standard error, and returns what became of it."""

    def tell(story, *arguments):
        # Into files: what a host leaves behind may hold on to its pipes, and would be waited for.
        with open(tmp_path / "out", "w+") as out, open(tmp_path / "err", "w+") as err:
            with host(contender, command(story, *arguments), stdout=out, stderr=err) as process:
                within(
                    20.0 if contender == "standard" else 45.0,
                    lambda: process.poll() is not None,
                    "the host hangs",
                    (tmp_path / "out").read_text,
                )
        return told((tmp_path / "out").read_text(), (tmp_path / "err").read_text(), process.returncode)

    return tell


def told(out, err, status):
    details = f"{out}\n{err}"
    last = err.strip().splitlines()[-1:] or [f"the host ends with {status}"]
    expect(out, last[0], details)
    found = json.loads(out)
    if isinstance(found, dict) and "error" in found:
        expect("TimeoutError" not in found["error"], "a worker hangs", details)
        raise Observed(f"{found['error']}\n{details}")
    expect(status == 0, f"the host ends with {status}", details)
    named = re.findall(r"\w+(?:Error|Warning)\b.*", err) or [err]
    expect(not err, f"noise on standard error: {named[-1]}", details)
    return found


def workers(*which):
    """Give a case workers of these kinds; what is in brackets is how they are started."""
    return pytest.mark.parametrize("kind", which)


def split(kind):
    """Return the kind's name, and the start method."""
    name, _, method = kind.partition(" by ")
    return name, method or "fork"


@pytest.mark.costly_table
@pytest.mark.case(SECTION, "each worker of another pool makes a pool, uses it and shuts it down")
@workers(
    "multiprocessing.Pool by fork",
    "multiprocessing.Pool by spawn",
    "multiprocessing.Pool by forkserver",
    "ProcessPoolExecutor by fork",
    "ProcessPoolExecutor by spawn",
    "multiprocessing.Process by fork",
    "multiprocessing.Process by forkserver",
)
def test_workers_of_others_make_pools(contender, tell, kind):
    expect(tell("each", "make_and_use", *split(kind)) == [SUM] * 4, "a wrong result")


@pytest.mark.case(SECTION, "each worker makes a pool, uses it and shuts it down", ways="both")
@workers("threads", "the same pool")
def test_threads_and_own_workers_make_pools(contender, tell, kind):
    expect(tell("each", "make_and_use", *split(kind)) == [SUM] * 4, "a wrong result")


@pytest.mark.case(
    SECTION, "all threads of a ThreadPoolExecutor use one pool, the first submits at the same time", ways="both"
)
def test_threads_share_a_pool(contender, tell):
    expect(tell("each", "use_shared", "threads") == [SUM] * 4, "a wrong result")


@pytest.mark.case(
    SECTION, "a pool is used, then in forked workers, which inherit it, then in the parent again", ways="both"
)
@workers("multiprocessing.Pool", "ProcessPoolExecutor", "multiprocessing.Process", "the same pool")
def test_an_inherited_pool(contender, tell, kind):
    expect(tell("inherited", kind) == [SUM] * 6, "a wrong result")


@pytest.mark.case(SECTION, "a worker's own pool loses a worker to SIGKILL, and is used again")
@workers(
    "multiprocessing.Pool by fork", "ProcessPoolExecutor by spawn", "multiprocessing.Process by fork", "the same pool"
)
def test_an_inner_worker_crashes(contender, tell, kind):
    expect(tell("each", "survive_a_crash", *split(kind)) == [SUM] * 4, "a wrong result")


@pytest.mark.case(SECTION, "workers of this pool use other kinds of workers", ways="both")
@workers(
    "multiprocessing.Pool by fork",
    "ProcessPoolExecutor by forkserver",
    "multiprocessing.Process by fork",
    "threads",
)
def test_our_workers_use_others(contender, tell, kind):
    expect(tell("inside", *split(kind)) == [SUM] * 2, "a wrong result")


@pytest.mark.case(SECTION, "pools four levels deep", ways="both")
def test_deep_down(contender, tell):
    pids = tell("deep", 4)
    expect(len(set(pids)) == 5, "levels share a process", pids)
    expect_gone(pids)


@pytest.mark.case(SECTION, "a worker is killed (SIGKILL) while its own pool is at work", ways="both")
@workers(
    "multiprocessing.Pool by fork", "ProcessPoolExecutor by fork", "ProcessPoolExecutor by spawn", "the same pool"
)
def test_the_outer_worker_is_killed(contender, tell, kind, tmp_path):
    told = tell("kill_the_outer_worker", *split(kind), tmp_path / "pid")
    expect(not told["inner"], "its pool's worker lives on")
    expect_nothing_left(os.environ)


@pytest.mark.case(SECTION, "workers are terminated (SIGTERM) while their own pools are at work", ways="both")
@workers("multiprocessing.Pool by fork", "multiprocessing.Pool by spawn", "multiprocessing.Process by fork")
def test_the_outer_workers_are_terminated(contender, tell, kind, tmp_path):
    told = tell("end_the_outer_workers", *split(kind), tmp_path / "pid")
    expect(not told["inner"], "the inner pool's worker lives on")
    expect_nothing_left(os.environ)


@pytest.mark.case(
    SECTION, "workers are shut down in order while their own pools have tasks left: those are finished", ways="both"
)
@workers(
    "ProcessPoolExecutor by fork",
    "multiprocessing.Process by fork",
    "multiprocessing.Process by spawn",
    "the same pool",
)
def test_the_outer_workers_are_shut_down(contender, tell, kind, tmp_path):
    told = tell("shut_down_with_work_inside", *split(kind), tmp_path / "done")
    expect(told == [True] * 4, f"{told.count(False)} of 4 tasks are lost")
    expect_nothing_left(os.environ)


@pytest.mark.case(SECTION, "the host is killed (SIGKILL) while a pool three levels deep is at work", ways="both")
def test_the_host_is_killed(contender, tmp_path):
    path = tmp_path / "pid"
    with host(contender, command("hold_on", 3, path)):
        within(15.0, lambda: path.exists() and path.read_text(), "the innermost task does not begin")
        assert is_alive(int(path.read_text()))
    expect_nothing_left(os.environ)
