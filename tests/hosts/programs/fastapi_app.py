"""The web application for FastAPI: a coroutine answers each path, and a function in a thread those under /sync/."""

from __future__ import annotations

from fastapi import FastAPI, Request

from tests.hosts.programs import async_web, web
from tests.hosts.programs.pools import Pools

pools = Pools()
app = FastAPI()


@app.get("/sync/{path:path}")
def in_a_thread(path: str, request: Request):
    with pools.of_request() as pool:
        return web.answer(pool, f"/{path}", request.url.query)


@app.get("/{path:path}")
async def in_the_loop(path: str, request: Request):
    with pools.of_request() as pool:
        return await async_web.answer(pool, f"/{path}", request.url.query)
