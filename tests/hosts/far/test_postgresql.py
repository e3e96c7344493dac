"""PostgreSQL: each session is a process of the server's, and functions in PL/Python run in an interpreter inside it.

The server signals its sessions, waits for any child, and starts all anew when one of them crashes. A session ends
without a word to Python.
"""

from __future__ import annotations

import json
import signal
from contextlib import contextmanager

import pytest

from tests.hosts.far.database import database
from tests.hosts.forking import kill
from tests.hosts.observing import end, expect, expect_gone, within
from tests.hosts.programs.web import SUM

SECTION = "PostgreSQL, functions in PL/Python"
WORK = "SELECT answer('/', '')"


@pytest.mark.case(
    SECTION, "a function uses a pool; its worker exits with code 3; the function again; the session ends", ways="both"
)
def test_working(contender, home, cluster):
    with database(contender, home, cluster) as server:
        one, crash, other = server.ask(WORK, "SELECT answer('/crash', 'code=3')", WORK)
        expect(one["sum"] == other["sum"] == SUM, "a wrong result")
        expect(one["pid"] == other["pid"], "the session's process is another one")
        expect(crash["error"], "the crash is not told")
        expect_gone([one["pid"], one["worker"]], "the session has ended, and its pool is left")


@pytest.mark.case(SECTION, "what a function defines in itself goes to workers", ways="both")
def test_definitions(contender, home, cluster):
    with database(contender, home, cluster) as server:
        (squares,) = server.ask("SELECT squares(4)")
        expect(squares == [0, 2, 8, 18], "a wrong result", squares)


@contextmanager
def busy_session(server, folder):
    """Have a session whose pool computes for ever while it sleeps; yield its process and the pool's worker."""
    session = server.session(f"SELECT begin_task('{folder}/begun')", "SELECT pg_sleep(600)")
    try:
        yield json.loads(within(20, session.stdout.readline, "the session says nothing", server.log))
    finally:
        end(session)


@pytest.mark.case(SECTION, "a session is ended (pg_terminate_backend) while its pool computes; another one goes on")
def test_a_session_is_ended(contender, home, cluster):
    with database(contender, home, cluster) as server, busy_session(server, server.folder) as (process, worker):
        (said,) = server.ask(WORK)
        expect(said["sum"] == SUM, "a wrong result")
        expect(server.say(f"SELECT pg_terminate_backend({process}, 5000)") == "t\n", "the session is not ended")
        expect_gone([process, worker], "the ended session's task runs on")
        expect(server.ask(WORK)[0]["sum"] == SUM, "a wrong result")


@pytest.mark.case(SECTION, "a session is killed (SIGKILL) while its pool computes: the server begins anew")
def test_a_session_is_killed(contender, home, cluster):
    with database(contender, home, cluster) as server:
        with busy_session(server, server.folder) as (process, worker):
            kill(process)
            expect_gone([worker], "the killed session's task runs on")
        within(20, server.answers, "the server does not begin anew", server.log)
        expect(server.ask(WORK)[0]["sum"] == SUM, "a wrong result")


STOPS = {"SIGINT": "fast", "SIGQUIT": "immediate", "SIGKILL": "killed"}


@pytest.mark.case(SECTION, "the server is stopped while a session's pool computes")
@pytest.mark.parametrize("number", STOPS, ids=STOPS.get)
def test_stop(contender, number, home, cluster):
    with database(contender, home, cluster) as server, busy_session(server, server.folder):
        server.process.send_signal(signal.Signals[number])
        within(15, lambda: server.process.poll() is not None, "the server does not stop", server.log)
        server.expect_nothing_left()
