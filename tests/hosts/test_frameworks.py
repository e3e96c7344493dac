"""Flask, Django and FastAPI in their development servers, whose two processes both import the application.

Flask's and Django's reloaders start their child anew when it exits with 3, so that must not come from the pool.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest

from tests.conditions import marked
from tests.hosts.observing import expect, expect_gone, expect_nothing_left
from tests.hosts.programs.web import SUM
from tests.hosts.serving import free_port, serve
from tests.hosts.using import begin, change, in_parallel, press_ctrl_c, press_ctrl_c_again_and_again

SECTION = "development servers"
CODE = {
    "Flask": "from tests.hosts.programs.flask_app import app\n",
    "Django": "from tests.hosts.programs.django_site import manage\n\nif __name__ == '__main__':\n    manage()\n",
    "FastAPI": "from tests.hosts.programs.fastapi_app import app\n",
    "fastapi dev": "from tests.hosts.programs.fastapi_app import app\n",
}
COMMANDS = {
    "Flask": "-m flask --app site_of_test run --debug --port {port}",
    "Django": "site_of_test.py runserver 127.0.0.1:{port}",
    "FastAPI": "-m uvicorn --reload --port {port} site_of_test:app",
    "fastapi dev": "-m fastapi dev --port {port} site_of_test.py",
}
WITHOUT_RELOADER = {
    "Flask": "-m flask --app site_of_test run --port {port}",
    "Django": "site_of_test.py runserver --noreload 127.0.0.1:{port}",
}
FRAMEWORKS = ["Flask", "Django", "FastAPI"]
MODULES = {"Flask": "flask", "Django": "django", "FastAPI": "fastapi", "fastapi dev": "fastapi_cli"}


def develop(framework, contender, folder, commands=COMMANDS, **options):
    """Start the framework's development server on an application whose file lies in the folder."""
    if find_spec(MODULES[framework]) is None:
        pytest.skip(f"{MODULES[framework]} is not installed")
    port = free_port()
    (folder / "site_of_test.py").write_text(CODE[framework])
    command = [sys.executable, *commands[framework].format(port=port).split()]
    return serve(contender, command, port, folder, cwd=folder, **options)


@pytest.mark.case(SECTION, "requests in parallel; a pool worker exits with code 3; requests; Ctrl-C")
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("when", ["module", "request"])
def test_working(contender, framework, when, tmp_path):
    env = {**marked("frameworks"), "POOL_AT": when}
    with develop(framework, contender, tmp_path, env=env) as server:
        process = server.get("/")["pid"]
        expect(server.get("/crash?code=3")["error"], "the crash is not told")
        for said in in_parallel(server, ["/"] * 6):
            expect(said["sum"] == SUM, "a wrong result")
            expect(said["pid"] == process, "the server is restarted", server.log())
        press_ctrl_c(server)
    expect_nothing_left(env)


@pytest.mark.case(SECTION, "the pool is used at import; the application's file changes, then a request, then Ctrl-C")
@pytest.mark.parametrize("framework", [*FRAMEWORKS, "fastapi dev"])
def test_reloading(contender, framework, tmp_path):
    env = {**marked("frameworks"), "POOL_AT": "import"}
    with develop(framework, contender, tmp_path, env=env) as server:
        before = server.get("/")
        change(server, tmp_path / "site_of_test.py")
        expect_gone([before["pid"], before["worker"]], "the old pool's workers are left")
        expect(server.get("/")["sum"] == SUM, "a wrong result")
        press_ctrl_c(server)
    expect_nothing_left(env)


@pytest.mark.case(SECTION, "Ctrl-C while a task spins")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_ctrl_c(contender, framework, tmp_path):
    env = marked("frameworks")
    with develop(framework, contender, tmp_path, env=env) as server:
        begin(server, "/spin", tmp_path / "begun")
        press_ctrl_c(server)
    expect_nothing_left(env)


@pytest.mark.case(SECTION, "without reloader: Ctrl-C, again and again, while a task spins")
@pytest.mark.parametrize("framework", WITHOUT_RELOADER)
def test_ctrl_c_without_reloader(contender, framework, tmp_path):
    # These servers swallow the KeyboardInterrupt and then end as if all were done; so the pool waits for its task, as
    # at any program's end, until it is told a second time.
    env = marked("frameworks")
    with develop(framework, contender, tmp_path, WITHOUT_RELOADER, env=env) as server:
        begin(server, "/spin", tmp_path / "begun")
        press_ctrl_c_again_and_again(server)
    expect_nothing_left(env)


@pytest.mark.case(SECTION, "endpoints that are no coroutines, which FastAPI runs in threads; a pool worker crashes")
def test_threads_of_fastapi(contender, tmp_path):
    env = marked("frameworks")
    with develop("FastAPI", contender, tmp_path, env=env) as server:
        for _ in range(2):
            for said in in_parallel(server, ["/", "/sync/"] * 6):
                expect(said["sum"] == SUM, "a wrong result")
            expect(server.get("/sync/crash?code=3")["error"], "the crash is not told")
        press_ctrl_c(server)
    expect_nothing_left(env)
