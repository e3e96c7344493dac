"""The web application for WSGI servers. POOL_AT says when its pool is made: "import" or "request"."""

from __future__ import annotations

import json
import os

from tests.hosts.programs.contender import ProcessPoolExecutor
from tests.hosts.programs.web import answer

_pool = ProcessPoolExecutor(2) if os.environ.get("POOL_AT") == "import" else None


def app(environ, start_response):
    global _pool
    if _pool is None:
        _pool = ProcessPoolExecutor(2)
    body = json.dumps(answer(_pool, environ["PATH_INFO"], environ.get("QUERY_STRING", ""))).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
