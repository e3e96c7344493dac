"""A WSGI application that uWSGI loads as a file, not as a module: the module of its tasks cannot be imported."""

from __future__ import annotations

import json

from tests.hosts.programs.contender import ProcessPoolExecutor

pool = ProcessPoolExecutor(2)


def double(number):
    return 2 * number


def application(environ, start_response):
    path = environ["PATH_INFO"]
    said = {"sum": sum(pool.map(double, range(20))), "module": __name__} if path == "/" else {}
    body = json.dumps(said).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
