"""The web application for Sanic."""

from __future__ import annotations

from sanic import Sanic
from sanic.response import json

from tests.hosts.programs.async_web import answer
from tests.hosts.programs.contender import ProcessPoolExecutor

app = Sanic("far")
_pool = ProcessPoolExecutor(2)


@app.get("/<path:path>")
async def anything(request, path):
    return json(await answer(_pool, f"/{path}", request.query_string))
