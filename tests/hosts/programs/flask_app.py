"""The web application for Flask. POOL_AT says when its pool is made and first used; see `pools`."""

from __future__ import annotations

from flask import Flask, request

from tests.hosts.programs.pools import Pools
from tests.hosts.programs.web import answer

pools = Pools()
app = Flask(__name__)


@app.route("/", defaults={"path": ""})
@app.route("/<path:path>")
def everything(path):
    with pools.of_request() as pool:
        return answer(pool, f"/{path}", request.query_string.decode())
