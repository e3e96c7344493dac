"""gunicorn, with a pool in each application worker: it recycles, reloads, times out, kills and stops those."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conditions import is_alive, marked
from tests.hosts.forking import begin_request, begin_task, crash, expect_replaced, kill, outcome, patience, use
from tests.hosts.observing import expect, expect_gone, expect_nothing_left, within
from tests.hosts.starting_gunicorn import INSTALLED, OLD, gunicorn

SECTION = "gunicorn"


@pytest.mark.costly_table
@pytest.mark.case(
    SECTION, "a pool in each application worker; a pool worker exits with code 3, then the next request"
)
@pytest.mark.parametrize(
    ("release", "kind"), [(INSTALLED, "sync"), (INSTALLED, "gthread"), (INSTALLED, "gevent"), (OLD, "sync")]
)
def test_a_pool_in_application_workers(contender, release, kind, folder_of, tmp_path):
    arguments = ["--workers", "2", "--worker-class", kind]
    with gunicorn(contender, tmp_path, *arguments, release=folder_of(release)) as server:
        use(server, 6, seconds=patience(contender))
        crash(server, 3, seconds=patience(contender))
        use(server, 6, seconds=patience(contender))


@pytest.mark.case(SECTION, "a pool in each application worker; the server is told to reload (SIGHUP)")
@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent"])
def test_a_reload(contender, kind, tmp_path):
    with gunicorn(contender, tmp_path, "--workers", "2", "--worker-class", kind) as server:
        said = use(server, 8, seconds=patience(contender))
        before = {one["pid"] for one in said} | {one["worker"] for one in said}
        server.send_signal(signal.SIGHUP)
        expect_gone(list(before), "processes from before the reload are left", seconds=10)
        after = use(server, 8, seconds=patience(contender))
        expect(not before & {one["pid"] for one in after}, "an old application worker answers")
        expect(is_alive(server.pid), "the server stops")


@pytest.mark.case(
    SECTION, "an application worker waits for a long task and exceeds --timeout: gunicorn kills it; is its task gone?"
)
def test_a_timeout_of_an_application_worker(contender, tmp_path):
    with (
        ThreadPoolExecutor(1) as clients,
        gunicorn(contender, tmp_path, "--workers", "2", "--timeout", "3") as server,
    ):
        asked, worker = begin_request(clients, server, tmp_path, 60, wait=10)
        within(10, lambda: "WORKER TIMEOUT" in server.log(), "the application worker is not timed out", server.log)
        expect_gone([worker], "the killed application worker's task runs on", seconds=8)
        use(server, 6, seconds=patience(contender))
        expect(outcome(asked) is None, "a request whose application worker was killed is answered")


@pytest.mark.case(SECTION, "an application worker is killed (SIGKILL) while its pool computes")
@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent"])
def test_an_application_worker_is_killed(contender, kind, tmp_path):
    with gunicorn(contender, tmp_path, "--workers", "2", "--worker-class", kind) as server:
        pools = {}
        for one in use(server, 6, seconds=patience(contender)):
            pools.setdefault(one["pid"], set()).add(one["worker"])
        application, worker = begin_task(server, tmp_path)
        kill(application)
        expect_gone([worker], "the killed application worker's task runs on", seconds=5)
        expect_gone(list(pools.get(application, ())), "idle pool workers are left", seconds=5)
        said = use(server, 6, seconds=patience(contender))
        expect(application not in {one["pid"] for one in said}, "a dead process answers")


@pytest.mark.case(SECTION, "the server is stopped gracefully (SIGTERM) while a request waits for a task")
@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent"])
def test_a_graceful_stop(contender, kind, tmp_path):
    env = marked("stop")
    with (
        ThreadPoolExecutor(1) as clients,
        gunicorn(contender, tmp_path, "--workers", "2", "--worker-class", kind, env=env) as server,
    ):
        use(server, 4, seconds=patience(contender))
        asked, worker = begin_request(clients, server, tmp_path, 1.0, wait=patience(contender))
        server.send_signal(signal.SIGTERM)
        expect((outcome(asked) or {}).get("worker") == worker, "the request that was running is not answered")
        expect(server.wait(10, "the server does not stop") == 0, "the server fails as it stops", server.log())
        expect_nothing_left(env)


@pytest.mark.case(SECTION, "the server is stopped at once (SIGINT) while a request waits for a long task")
def test_a_quick_stop(contender, tmp_path):
    env = marked("quick-stop")
    with (
        ThreadPoolExecutor(1) as clients,
        gunicorn(contender, tmp_path, "--workers", "2", "--graceful-timeout", "2", env=env) as server,
    ):
        use(server, 4, seconds=patience(contender))
        asked, _ = begin_request(clients, server, tmp_path, 60, wait=10)
        server.send_signal(signal.SIGINT)
        server.wait(10, "the server does not stop")
        expect_nothing_left(env)
        expect(outcome(asked) is None, "a request is answered that should have been cut off")


@pytest.mark.case(SECTION, "the server itself is killed (SIGKILL) while a request waits for a task")
def test_the_server_is_killed(contender, tmp_path):
    env = marked("killed")
    with (
        ThreadPoolExecutor(1) as clients,
        gunicorn(contender, tmp_path, "--workers", "2", "--timeout", "6", env=env) as server,
    ):
        use(server, 4)
        asked, _ = begin_request(clients, server, tmp_path, 1.0, wait=20)
        kill(server.pid)
        # Application workers finish what they do. They look each half of the timeout whether their parent is another.
        expect_nothing_left(env, seconds=12)
        expect(outcome(asked), "the request that was running is not answered")


@pytest.mark.case(SECTION, "application workers are replaced after a few requests (--max-requests)")
@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent"])
def test_recycled_application_workers_leave_nothing(contender, kind, tmp_path):
    arguments = ["--workers", "2", "--worker-class", kind, "--max-requests", "2"]
    with gunicorn(contender, tmp_path, *arguments) as server:
        expect_replaced(server, 2)
        use(server, 2)
        expect(is_alive(server.pid), "the server stops")
