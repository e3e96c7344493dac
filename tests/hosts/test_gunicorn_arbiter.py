"""gunicorn, with a pool in its arbiter, the process that forks the application workers and reaps what there is.

The arbiter runs waitpid(-1) whenever SIGCHLD comes. Releases before 22 halt if any child of its exits with 3 or 4.
"""

from __future__ import annotations

import json

import pytest

from tests.conditions import is_alive
from tests.hosts.forking import crash, patience, use
from tests.hosts.observing import expect, expect_gone, within
from tests.hosts.starting_gunicorn import INSTALLED, OLD, gunicorn

SECTION = "gunicorn, its arbiter"


@pytest.mark.case(
    SECTION,
    "--preload: the pool is used while the application is loaded, then in each application worker",
    ways="both",
)
@pytest.mark.parametrize("release", [INSTALLED, OLD])
def test_a_pool_that_was_used_before_the_forks(contender, release, folder_of, tmp_path):
    with gunicorn(
        contender,
        tmp_path,
        "--workers",
        "2",
        "--preload",
        app="tests.hosts.programs.preforked:app",
        release=folder_of(release),
    ) as server:
        loaded = server.get("/loaded")
        expect(loaded["by"] == server.pid, "the application is not loaded in the arbiter")
        said = use(server, 6, seconds=patience(contender))
        expect(loaded["worker"] not in {one["worker"] for one in said}, "application workers use the arbiter's pool")
        crash(server, 3, seconds=patience(contender))
        use(server, 4, seconds=patience(contender))
        expect(is_alive(server.pid), "the server stops")
        server.process.terminate()
        server.wait(10, "the server does not stop")
        expect_gone([loaded["worker"], *(one["worker"] for one in said)])


@pytest.mark.costly_table
@pytest.mark.case(
    SECTION,
    "a pool in the arbiter itself (the when_ready hook), whose workers exit with this code",
    ways="both",
)
@pytest.mark.parametrize("release", [INSTALLED, OLD])
@pytest.mark.parametrize("code", [3, 4])
def test_a_pool_in_the_arbiter(contender, code, release, folder_of, tmp_path):
    report = tmp_path / "report"
    env = {"POOL_EXIT_CODE": str(code), "POOL_REPORT": str(report)}
    config = "python:tests.hosts.programs.gunicorn_arbiter"
    with gunicorn(
        contender, tmp_path, "--workers", "2", "--config", config, env=env, release=folder_of(release)
    ) as server:
        within(10, report.exists, "the pool in the arbiter hangs", server.log)
        told = json.loads(report.read_text())
        expect(told["pid"] == server.pid, "the hook does not run in the arbiter")
        expect("NoneType" not in told["errors"], "the crash is not told", told)
        use(server, 6, seconds=patience(contender))
        expect(is_alive(server.pid), "the server stops", server.log())
