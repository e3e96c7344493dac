"""gunicorn, whose arbiter and workers handle SIGCHLD, with a swarm in an application worker."""

from __future__ import annotations

import pytest

from tests.conditions import marked
from tests.hosts.forking import kill
from tests.hosts.observing import expect, expect_gone, expect_nothing_left
from tests.hosts.starting_gunicorn import gunicorn
from tests.hosts.swarms.nodes import all_live, kill_and_expect_another

SECTION = "gunicorn"


@pytest.mark.case(SECTION, "a node is killed (SIGKILL), and started again; then the server is stopped (SIGTERM)")
@pytest.mark.parametrize("kind", ["sync", "gevent"])
def test_a_node_is_killed(contender, kind, tmp_path):
    env = {**marked("gunicorn"), "SWARM_FOLDER": str(tmp_path)}
    arguments = ["--workers", "1", "--worker-class", kind, "--graceful-timeout", "5"]
    with gunicorn(contender, tmp_path, *arguments, app="tests.hosts.programs.swarms.wsgi:app", env=env) as server:
        server.get("/swarm")
        kill_and_expect_another(tmp_path)
        server.process.terminate()
        expect(server.wait(10, "the server does not stop") == 0, "the server fails as it stops", server.log())
    expect_nothing_left(env)


@pytest.mark.case(SECTION, "the application worker is killed (SIGKILL); its nodes are gone, another one has its own")
def test_the_application_worker_is_killed(contender, tmp_path):
    env = {**marked("gunicorn"), "SWARM_FOLDER": str(tmp_path)}
    with gunicorn(
        contender, tmp_path, "--workers", "1", app="tests.hosts.programs.swarms.wsgi:app", env=env
    ) as server:
        application = server.get("/swarm")["pid"]
        pids = all_live(tmp_path)
        kill(application)
        expect_gone(pids, "nodes of the killed application worker are left")
        expect(server.get("/swarm")["pid"] != application, "a dead process answers")
        all_live(tmp_path)
