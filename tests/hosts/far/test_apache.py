"""Apache with mod_wsgi: a program of C with threads, whose application runs in these processes or in daemons.

Unless it is told otherwise, mod_wsgi runs each application in a subinterpreter of its own.
"""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.conditions import marked
from tests.hosts.far import debian
from tests.hosts.forking import begin_request, begin_task, crash, kill, outcome, patience, use
from tests.hosts.observing import expect, expect_gone, expect_nothing_left, within
from tests.hosts.programs.web import SUM
from tests.hosts.serving import free_port, serve
from tests.hosts.using import in_parallel

SECTION = "Apache with mod_wsgi"
USER = "www-data"
STOPS = 15.0  # Apache gives its processes 10 s, and kills them
MODULES = "/usr/lib/apache2/modules"
# A pool in one process is enough to look at.
ONE_PROCESS = """
<IfModule mpm_prefork_module>
StartServers 1
MinSpareServers 1
MaxSpareServers 1
MaxRequestWorkers 1
</IfModule>
<IfModule mpm_event_module>
StartServers 1
ServerLimit 1
ThreadsPerChild 4
MinSpareThreads 4
MaxSpareThreads 4
MaxRequestWorkers 4
</IfModule>
"""
DAEMON = "WSGIDaemonProcess site processes=1 threads=4\nWSGIProcessGroup site\n"
MODES = {
    "embedded, event": ("event", ""),
    "embedded, prefork": ("prefork", ""),
    "daemon": ("event", DAEMON),
}
# With the event kind, a process that has a subinterpreter hangs at its end, pool or not; Apache kills it after 10 s.
INTERPRETERS = {"main interpreter": "WSGIApplicationGroup %{GLOBAL}", "subinterpreter": ""}
CONFIGURATION = """
ServerName 127.0.0.1
ServerRoot {folder}
DefaultRuntimeDir {folder}
PidFile {folder}/httpd.pid
Listen 127.0.0.1:{port}
ErrorLog /dev/stderr
ErrorLogFormat "%M"
LogLevel warn
User {user}
Group {user}
GracefulShutdownTimeout 5
LoadModule mpm_{mpm}_module {modules}/mod_mpm_{mpm}.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule wsgi_module {modules}/mod_wsgi.so
WSGISocketPrefix {folder}/wsgi
<Directory {folder}>
Require all granted
</Directory>
{one_process}
{mode}
{interpreter}
{second}
WSGIScriptAlias / {folder}/site.wsgi
"""


# The main interpreter of the one and the subinterpreter of the other, so that all ends.
ENDING = {"embedded": ("embedded, event", "main interpreter"), "daemon": ("daemon", "subinterpreter")}


@contextmanager
def apache(contender, home, mode, interpreter="subinterpreter", *, second=False, **options):
    """Start Apache; yield the server, and a folder that its processes can write to."""
    debian.needs_root()
    debian.needs("apache2", f"{MODULES}/mod_wsgi.so")
    port = free_port()
    mpm, how = MODES[mode]
    with debian.public_folder(USER) as folder:
        (folder / "site.wsgi").write_text("from tests.hosts.programs.wsgi import app as application\n")
        (folder / "httpd.conf").write_text(
            CONFIGURATION.format(
                folder=folder,
                one_process=ONE_PROCESS,
                port=port,
                user=USER,
                mpm=mpm,
                modules=MODULES,
                mode=how,
                interpreter=INTERPRETERS[interpreter],
                second=f"WSGIScriptAlias /second {folder}/site.wsgi" if second else "",
            )
        )
        command = ["apache2", "-d", str(folder), "-f", str(folder / "httpd.conf"), "-DFOREGROUND"]
        env = debian.environment(home, POOL_AT="import", **options.pop("env", {}))
        with serve(contender, command, port, folder, env=env, stops=STOPS, **options) as server:
            yield server, folder


@pytest.mark.case(SECTION, "requests in parallel; a pool worker exits with code 3; requests")
@pytest.mark.parametrize("interpreter", INTERPRETERS)
@pytest.mark.parametrize("mode", MODES)
def test_working(contender, mode, interpreter, home):
    with apache(contender, home, mode, interpreter) as (server, _):
        for said in in_parallel(server, ["/"] * 6):
            expect(said["sum"] == SUM, "a wrong result")
        crash(server, 3, seconds=patience(contender))
        use(server, 4, seconds=patience(contender))


@pytest.mark.case(
    SECTION, "two applications in a process, each in a subinterpreter, each with a pool; a crash in one"
)
@pytest.mark.parametrize("mode", ["embedded, prefork", "daemon"])
def test_two_applications(contender, mode, home):
    with apache(contender, home, mode, second=True) as (server, _):
        one, other = use(server, 1, patience(contender))[0], server.get("/second/", patience(contender))
        expect(one["pid"] == other["pid"], "the applications run in two processes")
        expect(one["worker"] != other["worker"], "the applications share a pool")
        expect(server.get("/second/crash?code=3", patience(contender))["error"], "the crash is not told")
        for path in ("/", "/second/"):
            expect(server.get(path, patience(contender))["sum"] == SUM, "a wrong result")


@pytest.mark.case(SECTION, "the server is stopped (SIGTERM) while a request waits for a long task")
@pytest.mark.parametrize("mode", ENDING)
def test_stop(contender, mode, home):
    env = marked("stop")
    with ThreadPoolExecutor(1) as clients, apache(contender, home, *ENDING[mode], env=env) as (server, folder):
        asked, worker = begin_request(clients, server, folder, 60, wait=10)
        server.send_signal(signal.SIGTERM)
        expect_gone([worker], "the stopped server's task runs on", seconds=STOPS)
        server.wait(STOPS, "the server does not stop")
        expect_nothing_left(env)
        expect(outcome(asked) is None, "a request is answered that should have been cut off")


@pytest.mark.case(SECTION, "graceful restart (SIGUSR1) while a request waits for a task: it is answered; requests")
@pytest.mark.parametrize("mode", ENDING)
def test_graceful_restart(contender, mode, home):
    with ThreadPoolExecutor(1) as clients, apache(contender, home, *ENDING[mode]) as (server, folder):
        process = use(server, 1, patience(contender))[0]["pid"]
        asked, worker = begin_request(clients, server, folder, 2.0, wait=10)
        server.send_signal(signal.SIGUSR1)
        expect((outcome(asked) or {}).get("worker") == worker, "the request that waited is not answered")
        expect_gone([process, worker], "the old process or its pool is left", seconds=STOPS)
        said = use(server, 2, seconds=patience(contender))
        expect(process not in {one["pid"] for one in said}, "the old process answers")


@pytest.mark.case(SECTION, "the process that runs the application is killed (SIGKILL) while its pool computes")
@pytest.mark.parametrize("mode", ENDING)
def test_kill(contender, mode, home):
    with apache(contender, home, *ENDING[mode]) as (server, folder):
        process, worker = begin_task(server, folder)
        kill(process)
        expect_gone([worker], "the killed process's task runs on")
        within(10, lambda: server.answers(), "no process takes its place", server.log)
        use(server, 2, seconds=patience(contender))
