"""Celery, whose processes are daemonic and are killed at their time limits, with a swarm in one of them."""

from __future__ import annotations

import os

import pytest

from tests.hosts.forking import kill
from tests.hosts.observing import expect, expect_gone, expect_nothing_left
from tests.hosts.swarms.nodes import all_live, kill_and_expect_another

pytest.importorskip("celery")
from tests.hosts.test_celery import celery

SECTION = "Celery"


@pytest.mark.case(SECTION, "prefork: a task starts a swarm; a node is killed, and started again; warm shutdown")
def test_a_node_is_killed(contender, tmp_path):
    folder = tmp_path / "nodes"
    folder.mkdir()
    with celery(contender, tmp_path) as worker:
        worker.do("keep_swarm", str(folder))
        kill_and_expect_another(folder)
        status = worker.end()
        expect(status == 0, f"the Celery worker ends with {status}", worker.log())
    expect_nothing_left(os.environ)


@pytest.mark.case(SECTION, "prefork: the process whose task has started a swarm is killed (SIGKILL)")
def test_the_process_is_killed(contender, tmp_path):
    folder = tmp_path / "nodes"
    folder.mkdir()
    with celery(contender, tmp_path) as worker:
        process = worker.do("keep_swarm", str(folder))
        pids = all_live(folder)
        kill(process)
        expect_gone(pids, "nodes of the killed process are left")
