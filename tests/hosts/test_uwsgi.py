"""uWSGI: a program of C that has Python inside, forks without telling it, and reaps with waitpid(-1).

There, sys.executable is uWSGI, and so it is not what a template may be started with.

Releases of uWSGI whose workers have no threads unless --enable-threads is given keep the GIL between two requests, so
that a pool's thread runs only while a request waits for something. That is enough for results, and for replacing
workers; `tests/template/test_traps.py` has a host that does the same. The release here has threads always.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conditions import marked
from tests.hosts.forking import begin_request, begin_task, crash, expect_replaced, kill, outcome, patience, use
from tests.hosts.observing import expect, expect_gone, expect_nothing_left, within
from tests.hosts.programs.web import SUM
from tests.hosts.serving import free_port, serve

SECTION = "uWSGI"
# How application workers come into being: forked before the application is loaded, or after that.
MODES = {"lazy-apps": ["--lazy-apps"], "preforked": []}
# How the preforked ones tell Python of their fork: by default they do not.
HOOKS = {
    "no hooks": [],
    "py-call-osafterfork": ["--py-call-osafterfork"],
    "py-call-uwsgi-fork-hooks": ["--py-call-uwsgi-fork-hooks"],
}
# When the application makes its pool.
APPLICATIONS = {
    "pool at request": "tests.hosts.programs.wsgi:app",
    "pool at import": "tests.hosts.programs.preforked:app",
}


def uwsgi(contender, folder, *arguments, app="tests.hosts.programs.wsgi:app", **options):
    program = shutil.which("uwsgi", path=os.path.dirname(sys.executable)) or shutil.which("uwsgi")
    if program is None:
        pytest.skip("uWSGI is not installed")
    port = free_port()
    command = [program, "--http-socket", f"127.0.0.1:{port}", "--master", "--need-app", "--die-on-term"]
    command += ["--worker-reload-mercy", "2", *arguments]
    if app is not None:
        command += ["--module", app]
    return serve(contender, command, port, folder, **options)


@pytest.mark.case(
    SECTION,
    "a pool in each application worker; a pool worker exits with code 22, then the next request",
    ways="both",
)
@pytest.mark.parametrize("mode", MODES)
def test_a_pool_in_application_workers(contender, mode, tmp_path):
    with uwsgi(contender, tmp_path, "--processes", "2", *MODES[mode]) as server:
        use(server, 6, seconds=patience(contender))
        crash(server, 22, seconds=patience(contender))
        use(server, 6, seconds=patience(contender))


@pytest.mark.case(SECTION, "application workers with threads (--threads), of which several use the pool at a time")
def test_threads_of_an_application_worker(contender, tmp_path):
    with (
        ThreadPoolExecutor(4) as clients,
        uwsgi(contender, tmp_path, "--processes", "1", "--threads", "4") as server,
    ):
        asked = [clients.submit(use, server, 5, patience(contender)) for _ in range(4)]
        for one in asked:
            one.result()
        crash(server, 3, seconds=patience(contender))
        use(server, 4, seconds=patience(contender))


@pytest.mark.case(
    SECTION, "the pool is used while the master loads the application, then in each application worker", ways="both"
)
@pytest.mark.parametrize("hooks", HOOKS)
def test_a_pool_that_was_used_before_the_forks(contender, hooks, tmp_path):
    with uwsgi(contender, tmp_path, "--processes", "2", *HOOKS[hooks], app=APPLICATIONS["pool at import"]) as server:
        loaded = server.get("/loaded")
        expect(loaded["by"] == server.pid, "the application is not loaded in the master")
        said = use(server, 6, seconds=patience(contender))
        expect(loaded["worker"] not in {one["worker"] for one in said}, "application workers use the master's pool")
        crash(server, 3, seconds=patience(contender))
        use(server, 4, seconds=patience(contender))
        server.process.terminate()
        server.wait(10, "the server does not stop")
        expect_gone([loaded["worker"], *(one["worker"] for one in said)])


@pytest.mark.case(SECTION, "a pool worker of the master's pool is killed: the master reaps what it did not start")
def test_the_master_sees_no_child_of_the_pool(contender, tmp_path):
    with uwsgi(contender, tmp_path, "--processes", "2", app=APPLICATIONS["pool at import"]) as server:
        loaded = server.get("/loaded")
        kill(loaded["worker"])
        kill(loaded["pid"])  # the master tells of this one, which died later
        within(20, lambda: "DAMN ! worker" in server.log(), "a killed application worker is not noticed", server.log)
        expect("subprocess" not in server.log(), "the master finds a child that it does not know", server.log())


@pytest.mark.case(SECTION, "two applications in each process (--mount), the second one in a subinterpreter of Python")
@pytest.mark.parametrize("mode", MODES)
def test_subinterpreters(contender, mode, tmp_path):
    mounts = [f"--mount=/{name}={app}" for name, app in zip("ab", APPLICATIONS.values(), strict=True)]
    arguments = ["--processes", "2", "--manage-script-name", *mounts, *MODES[mode]]
    with uwsgi(contender, tmp_path, *arguments, app=None, ready="/a/ready") as server:
        expect("mountpoint='/b') ready" in server.log(), "the second application cannot be loaded", server.log())
        for _ in range(4):
            for path in ("/a/", "/b/"):
                expect(server.get(path, patience(contender))["sum"] == SUM, "a wrong result")
        expect(server.get("/b/crash?code=3", patience(contender))["error"], "the crash is not told")
        for path in ("/a/", "/b/"):
            expect(server.get(path, patience(contender))["sum"] == SUM, "a wrong result")


@pytest.mark.case(SECTION, "tasks that are defined in the file that uWSGI was given (--wsgi-file)", ways="both")
def test_tasks_of_a_file(contender, tmp_path):
    path = os.path.join(os.path.dirname(__file__), "programs", "wsgi_file.py")
    with uwsgi(contender, tmp_path, "--processes", "1", "--wsgi-file", path, app=None) as server:
        said = server.get("/", seconds=patience(contender))
        expect(said["module"].startswith("uwsgi_file"), "the file is loaded as another module", said)
        expect(said["sum"] == SUM, "a wrong result")


@pytest.mark.case(
    SECTION, "an application worker waits for a long task and exceeds --harakiri: uWSGI kills it; is its task gone?"
)
@pytest.mark.parametrize("mode", MODES)
def test_harakiri(contender, mode, tmp_path):
    with (
        ThreadPoolExecutor(1) as clients,
        uwsgi(contender, tmp_path, "--processes", "2", "--harakiri", "3", *MODES[mode]) as server,
    ):
        asked, worker = begin_request(clients, server, tmp_path, 60, wait=10)
        expect_gone([worker], "the killed application worker's task runs on", seconds=12)
        expect("HARAKIRI" in server.log(), "the task ends without harakiri", server.log())
        use(server, 6, seconds=patience(contender))
        expect(outcome(asked) is None, "a request whose application worker was killed is answered")


@pytest.mark.case(SECTION, "an application worker is killed (SIGKILL) while its pool computes")
def test_an_application_worker_is_killed(contender, tmp_path):
    with uwsgi(contender, tmp_path, "--processes", "2", "--lazy-apps") as server:
        use(server, 4, seconds=patience(contender))
        application, worker = begin_task(server, tmp_path)
        kill(application)
        expect_gone([worker], "the killed application worker's task runs on", seconds=5)
        said = use(server, 6, seconds=patience(contender))
        expect(application not in {one["pid"] for one in said}, "a dead process answers")


@pytest.mark.costly_table
@pytest.mark.case(SECTION, "the server is told to reload (SIGHUP)")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("made", APPLICATIONS)
def test_a_reload(contender, made, mode, tmp_path):
    with uwsgi(contender, tmp_path, "--processes", "2", *MODES[mode], app=APPLICATIONS[made]) as server:
        said = use(server, 6, seconds=patience(contender))
        before = {one["pid"] for one in said} | {one["worker"] for one in said}
        if made == "pool at import":
            before.add(server.get("/loaded")["worker"])
        server.send_signal(signal.SIGHUP)
        expect_gone(list(before), "processes from before the reload are left", seconds=10)
        after = use(server, 6, seconds=patience(contender))
        expect(not before & {one["pid"] for one in after}, "an old application worker answers")


@pytest.mark.case(SECTION, "the server is stopped while a request waits for a long task")
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_stop(contender, number, tmp_path):
    env = marked("stop")
    with (
        ThreadPoolExecutor(1) as clients,
        uwsgi(contender, tmp_path, "--processes", "2", env=env) as server,
    ):
        use(server, 4, seconds=patience(contender))
        asked, _ = begin_request(clients, server, tmp_path, 60, wait=10)
        server.send_signal(signal.Signals[number])
        server.wait(15, "the server does not stop")
        expect_nothing_left(env)
        expect(outcome(asked) is None, "a request is answered that should have been cut off")


@pytest.mark.case(SECTION, "application workers are replaced after a few requests (--max-requests)")
def test_recycled_application_workers_leave_nothing(contender, tmp_path):
    with uwsgi(
        contender, tmp_path, "--processes", "2", "--max-requests", "3", "--min-worker-lifetime", "0"
    ) as server:
        expect_replaced(server, 2)
        use(server, 2, seconds=patience(contender))
