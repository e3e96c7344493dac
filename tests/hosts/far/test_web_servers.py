"""More servers for applications in Python: of threads, of event loops, of Rust, with and without server processes."""

from __future__ import annotations

import signal
import sys
from importlib.util import find_spec

import pytest

from tests.conditions import marked
from tests.hosts.forking import begin_task, crash, kill, patience, use
from tests.hosts.observing import expect, expect_gone, expect_nothing_left, within
from tests.hosts.programs.web import SUM
from tests.hosts.serving import free_port, serve
from tests.hosts.using import in_parallel

SECTION = "hypercorn, granian, waitress, Sanic, daphne, CherryPy"
ASGI = "tests.hosts.programs.asgi:app"
WSGI = "tests.hosts.programs.wsgi:app"
SANIC = "sanic --host 127.0.0.1 --port {port} tests.hosts.far.programs.sanic_app:app"
COMMANDS = {
    "hypercorn": f"hypercorn --bind 127.0.0.1:{{port}} {ASGI}",
    "hypercorn, 2 processes": f"hypercorn --workers 2 --bind 127.0.0.1:{{port}} {ASGI}",
    "granian": f"granian --interface asgi --host 127.0.0.1 --port {{port}} --respawn-failed-workers {ASGI}",
    "granian, WSGI": f"granian --interface wsgi --host 127.0.0.1 --port {{port}} --respawn-failed-workers {WSGI}",
    "waitress": f"waitress --listen 127.0.0.1:{{port}} {WSGI}",
    "Sanic": SANIC,
    "Sanic, one process": f"{SANIC} --single-process",
    "daphne": f"daphne -b 127.0.0.1 -p {{port}} {ASGI}",
    "CherryPy": "tests.hosts.far.programs.cherrypy_site {port}",
}


@pytest.fixture(params=COMMANDS)
def command(request):
    name = request.param.partition(",")[0].lower()
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    return COMMANDS[request.param]


def start(contender, command, folder, **options):
    port = free_port()
    return serve(contender, [sys.executable, "-m", *command.format(port=port).split()], port, folder, **options)


@pytest.mark.case(SECTION, "requests in parallel; a pool worker exits with code 3; requests; SIGTERM")
def test_working(contender, command, tmp_path):
    env = marked("servers")
    with start(contender, command, tmp_path, env=env) as server:
        for said in in_parallel(server, ["/"] * 6):
            expect(said["sum"] == SUM, "a wrong result")
        crash(server, 3, seconds=patience(contender))
        use(server, 4, seconds=patience(contender))
        server.send_signal(signal.SIGTERM)
        server.wait(10, "the server does not stop")
        expect_nothing_left(env)


@pytest.mark.case(SECTION, "the process that answers is killed (SIGKILL) while its pool computes")
def test_kill(contender, command, tmp_path):
    with start(contender, command, tmp_path) as server:
        process, worker = begin_task(server, tmp_path)
        kill(process)
        expect_gone([worker], "the killed process's task runs on")
        if "--respawn" in command:  # a process that granian starts while it is told to stop is not stopped
            within(20, server.answers, "no process takes its place", server.log)
