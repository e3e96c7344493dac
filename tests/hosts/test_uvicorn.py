"""uvicorn: an event loop with signal handlers, in one process, under its supervisor, and under its reloader."""

from __future__ import annotations

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from pidfdpool.pidfd import Pidfd
from tests.conditions import marked
from tests.hosts.observing import Observed, expect, expect_gone, expect_nothing_left, within
from tests.hosts.programs.web import SUM
from tests.hosts.serving import free_port, serve
from tests.hosts.using import begin, change, holds, in_parallel, press_ctrl_c, press_ctrl_c_again_and_again

SECTION = "uvicorn"
APPLICATION = "tests.hosts.programs.asgi:app"
SIGNALS = ["SIGTERM", "SIGINT"]


def uvicorn(contender, folder, *arguments, app=APPLICATION, **options):
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port), *arguments, app]
    return serve(contender, command, port, folder, **options)


def send(pid, number):
    """Send a signal to a process that has just answered."""
    with Pidfd.open(pid) as process:
        process.send_signal(number)


@pytest.mark.case(SECTION, "requests in parallel, each with twenty calls in the pool")
def test_requests_in_parallel(contender, tmp_path):
    with uvicorn(contender, tmp_path) as server:
        for said in in_parallel(server, ["/"] * 20):
            expect(said["sum"] == SUM, "a wrong result")


@pytest.mark.case(SECTION, "a pool worker exits with code 3, then the next requests")
def test_a_worker_exits(contender, tmp_path):
    with uvicorn(contender, tmp_path) as server:
        server.get("/")
        for _ in range(3):
            expect(server.get("/crash?code=3")["error"], "the crash is not told")
            for said in in_parallel(server, ["/"] * 5):
                expect(said["sum"] == SUM, "a wrong result")


@pytest.mark.case(SECTION, "a pool worker crashes while other requests wait for theirs")
def test_a_crash_beside_other_requests(contender, tmp_path):
    with uvicorn(contender, tmp_path) as server:
        server.get("/")
        with ThreadPoolExecutor(1) as threads:
            other = threads.submit(server.get, f"/sleep?seconds=1&path={tmp_path / 'begun'}")
            within(10, (tmp_path / "begun").exists, "the task does not begin", server.log)
            expect(server.get("/crash?code=3")["error"], "the crash is not told")
            try:
                other.result()
            except Observed as observed:
                raise Observed(f"a request beside it fails\n{observed}") from None


@pytest.mark.case(SECTION, "somebody sends SIGTERM to a pool worker, then the next requests")
def test_sigterm_to_a_pool_worker(contender, tmp_path):
    with uvicorn(contender, tmp_path) as server:
        worker = server.get("/")["worker"]
        send(worker, signal.SIGTERM)
        expect_gone([worker], "the pool worker ignores SIGTERM")
        for _ in range(3):
            expect(server.get("/")["sum"] == SUM, "a wrong result")
        expect("Shutting down" not in server.log(), "the server stops", server.log())


@pytest.mark.case(SECTION, "the server is told to stop; its pool is idle, and the app does nothing about it")
@pytest.mark.parametrize("name", SIGNALS)
def test_stopping_with_an_idle_pool(contender, name, tmp_path):
    env = marked("uvicorn")
    with uvicorn(contender, tmp_path, env=env) as server:
        server.get("/")
        os.killpg(server.pid, signal.Signals[name])
        server.wait(10, "the server does not stop")
        expect("Traceback" not in server.log(), "tracebacks in the log", server.log())
    expect_nothing_left(env)


@pytest.mark.case(SECTION, "the server is told to stop while a task spins; the app does nothing about its pool")
def test_stopping_while_a_task_runs(contender, tmp_path):
    env = marked("uvicorn")
    with uvicorn(contender, tmp_path, env=env) as server:
        begin(server, "/spin", tmp_path / "begun")
        server.send_signal(signal.SIGTERM)
        server.wait(10, "the server does not stop")
    expect_nothing_left(env)


@pytest.mark.case(SECTION, "Ctrl-C, again and again, while a task spins; the app does nothing about its pool")
def test_ctrl_c_while_a_task_runs(contender, tmp_path):
    env = marked("uvicorn")
    with uvicorn(contender, tmp_path, env=env) as server:
        begin(server, "/spin", tmp_path / "begun")
        press_ctrl_c_again_and_again(server)
    expect_nothing_left(env)


@pytest.mark.case(
    SECTION, "the server is told to stop while a task runs; the app calls shutdown(cancel_futures=True)"
)
@pytest.mark.parametrize("name", SIGNALS)
def test_stopping_with_shutdown(contender, name, tmp_path):
    env = {**marked("uvicorn"), "AT_SHUTDOWN": "cancel"}
    with uvicorn(contender, tmp_path, env=env) as server:
        begin(server, "/background?seconds=1", tmp_path / "begun")
        os.killpg(server.pid, signal.Signals[name])
        server.wait(10, "the server does not stop")
        expect("Application shutdown complete" in server.log(), "the app's shutdown fails", server.log())
        expect("Traceback" not in server.log(), "tracebacks in the log", server.log())
    expect_nothing_left(env)


@pytest.mark.case(SECTION, "the server is told to stop while a task spins; the app calls kill_workers()")
@pytest.mark.parametrize("name", SIGNALS)
def test_stopping_with_kill_workers(contender, name, tmp_path):
    env = {**marked("uvicorn"), "AT_SHUTDOWN": "kill"}
    with uvicorn(contender, tmp_path, "--lifespan", "on", env=env) as server:  # "on": it tells what fails there
        begin(server, "/spin", tmp_path / "begun")
        os.killpg(server.pid, signal.Signals[name])
        within(10, lambda: "Application shutdown" in server.log(), "the app is not told of the end", server.log)
        expect("has no attribute 'kill_workers'" not in server.log(), "the executor has no kill_workers()")
        server.wait(5, "the server does not stop")
    expect_nothing_left(env)


@pytest.mark.case(SECTION, "SIGTERM while a request waits for its task, with --timeout-graceful-shutdown 1")
def test_stopping_while_a_request_waits(contender, tmp_path):
    env = marked("uvicorn")
    with uvicorn(contender, tmp_path, "--timeout-graceful-shutdown", "1", env=env) as server:
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(server.get, f"/sleep?seconds=60&path={tmp_path / 'begun'}", 20.0)
            within(10, (tmp_path / "begun").exists, "the task does not begin", server.log)
            server.send_signal(signal.SIGTERM)
            server.wait(10, "the server does not stop")
            expect(waiting.exception() is not None, "a request is answered before its task is over")
    expect_nothing_left(env)


@pytest.mark.case(SECTION, "--workers 2: a server process is killed; its supervisor starts another one")
def test_a_killed_server_process(contender, tmp_path):
    env = marked("uvicorn")
    with uvicorn(contender, tmp_path, "--workers", "2", env=env) as server:
        said = server.get("/")
        begin(server, "/spin", tmp_path / "begun")  # in either of the two
        send(said["pid"], signal.SIGKILL)
        expect_gone([said["pid"], said["worker"]], "the pool workers of the dead process are left")

        def answered_by_another():
            again = server.get("/")
            expect(again["sum"] == SUM, "a wrong result")
            return again["pid"] != said["pid"]

        within(15, holds(answered_by_another), "no other process answers", server.log)
        server.send_signal(signal.SIGTERM)
        server.wait(15, "the server does not stop")
    expect_nothing_left(env)


@pytest.mark.case(SECTION, "--workers 2: Ctrl-C in the terminal")
def test_ctrl_c_with_a_supervisor(contender, tmp_path):
    env = marked("uvicorn")
    with uvicorn(contender, tmp_path, "--workers", "2", env=env) as server:
        for _ in range(6):
            expect(server.get("/")["sum"] == SUM, "a wrong result")
        # An interpreter that is just starting complains of a Ctrl-C.
        started = "Application startup complete"
        within(15, lambda: server.log().count(started) == 2, "one of the two does not start", server.log)
        press_ctrl_c(server)
    expect_nothing_left(env)


@pytest.mark.case(SECTION, "--reload: the app's file changes while a task spins")
def test_reloading(contender, tmp_path):
    env = marked("uvicorn")
    code = tmp_path / "reloaded_app.py"
    code.write_text("from tests.hosts.programs.asgi import app\n")
    flags = ["--app-dir", str(tmp_path), "--reload", "--reload-dir", str(tmp_path)]
    with uvicorn(contender, tmp_path, *flags, app="reloaded_app:app", env=env) as server:
        before = server.get("/")
        spinning = begin(server, "/spin", tmp_path / "begun")
        change(server, code)
        expect_gone([before["pid"], before["worker"], spinning], "the old pool's workers are left")
        expect(server.get("/")["sum"] == SUM, "a wrong result")
        press_ctrl_c(server)
    expect_nothing_left(env)
