"""A WSGI application whose pool is made and used while the application is loaded, which may be before the forks."""

from __future__ import annotations

import json
import os

from tests.hosts.programs import tasks
from tests.hosts.programs.contender import ProcessPoolExecutor
from tests.hosts.programs.web import answer

_pool = ProcessPoolExecutor(2)
_loaded = {
    "by": os.getpid(),
    "sum": sum(_pool.map(tasks.double, range(20))),
    "worker": _pool.submit(tasks.pid).result(),
}


def app(environ, start_response):
    """Answer as all do; /loaded tells which process has loaded this module, and a pool worker of that time."""
    path = environ["PATH_INFO"]
    said = {**_loaded, "pid": os.getpid()} if path == "/loaded" else answer(_pool, path, environ["QUERY_STRING"])
    body = json.dumps(said).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
