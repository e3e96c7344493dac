"""The web application for ASGI servers, without any framework.

AT_SHUTDOWN says what it does about its pool when the server tells it that this is the end: "nothing" (the default),
"cancel" (`shutdown(cancel_futures=True)`, in a thread, so as not to block the loop) or "kill" (`kill_workers()`).
"""

from __future__ import annotations

import asyncio
import json
import os

from tests.hosts.programs.async_web import answer
from tests.hosts.programs.contender import ProcessPoolExecutor

_pool = ProcessPoolExecutor(2)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    body = json.dumps(await answer(_pool, scope["path"], scope["query_string"].decode())).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _live(receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    wanted = os.environ.get("AT_SHUTDOWN", "nothing")
    if wanted == "cancel":
        await asyncio.to_thread(_pool.shutdown, cancel_futures=True)
    elif wanted == "kill":
        _pool.kill_workers()
    await send({"type": "lifespan.shutdown.complete"})
