"""A web application whose process has a swarm, from a request for /swarm on; its folder is in SWARM_FOLDER."""

from __future__ import annotations

import json
import os
from typing import Any

from tests.hosts.programs.swarms.contender import Swarm

_swarms: list[Any] = []


def app(environ: Any, start_response: Any) -> list[bytes]:
    if environ["PATH_INFO"] == "/swarm" and not _swarms:
        _swarms.append(Swarm(2, os.environ["SWARM_FOLDER"]))
    body = json.dumps({"pid": os.getpid()}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
