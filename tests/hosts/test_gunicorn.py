"""gunicorn: its arbiter reaps with waitpid(-1) in a SIGCHLD handler, and halts when a child's exit code is 3 or 4."""

from __future__ import annotations

import sys

import pytest

from tests.hosts.observing import expect
from tests.hosts.programs.web import SUM
from tests.hosts.serving import free_port, serve

SECTION = "gunicorn"


def gunicorn(contender, folder, *arguments, app="tests.hosts.programs.wsgi:app", **options):
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", *arguments, app]
    return serve(contender, command, port, folder, **options)


@pytest.mark.case(
    SECTION, "a pool in each application worker; a pool worker exits with code 3, then the next request"
)
@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent"])
def test_a_pool_in_application_workers(contender, kind, tmp_path):
    with gunicorn(contender, tmp_path, "--workers", "2", "--worker-class", kind) as server:
        for _ in range(6):
            expect(server.get("/")["sum"] == SUM, "a wrong result")
        said = server.get("/crash?code=3")
        expect(said["error"], "the crash is not told")
        for _ in range(6):
            expect(server.get("/")["sum"] == SUM, "a wrong result")
