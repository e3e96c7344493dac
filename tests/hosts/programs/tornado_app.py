"""A Tornado server that uses a pool: `tornado_app.py PORT PROCESSES`.

With 2 processes the pool is used before `fork_processes`, and then in each of the processes, and in a thread of their
parent, which sits in os.wait(). /stop ends the process that answers; the parent ends when all of them have, and then
says what became of its own pool.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress

from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.process import fork_processes, task_id
from tornado.web import Application, RequestHandler

from pidfdpool.pidfd import prctl
from tests.hosts.programs import tasks
from tests.hosts.programs.contender import ProcessPoolExecutor
from tests.hosts.programs.web import answer

pool = ProcessPoolExecutor(2)


class Answer(RequestHandler):
    async def get(self) -> None:
        path, query = self.request.path, self.request.query
        if path == "/double":  # the loop's own way to use an executor
            doubled = await IOLoop.current().run_in_executor(pool, tasks.double, 21)
            self.write(json.dumps(doubled))
            return
        told = await IOLoop.current().run_in_executor(None, answer, pool, path, query)
        self.write(json.dumps(told))


class Stop(RequestHandler):
    def initialize(self, stopped: asyncio.Event) -> None:
        self.stopped = stopped

    def get(self) -> None:
        self.write("null")
        self.stopped.set()


async def serve(sockets: list) -> None:
    stopped = asyncio.Event()
    server = HTTPServer(Application([("/stop", Stop, {"stopped": stopped}), (".*", Answer)]))
    server.add_sockets(sockets)
    await stopped.wait()
    server.stop()
    await server.close_all_connections()


class ParentsWork(threading.Thread):
    """Uses the pool, and loses workers of it, in the parent of the processes that serve."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.crashes = 0

    def run(self) -> None:
        while not self.over.wait(0.05):
            with suppress(BrokenProcessPool):
                pool.submit(tasks.leave, 3).result()
            if pool.submit(tasks.double, 21).result() == 42:
                self.crashes += 1


def fork(processes: int) -> None:
    """Return in each of the processes; the parent does not, but ends the program."""
    pool.submit(tasks.double, 1).result()
    work = ParentsWork()
    work.start()
    try:
        fork_processes(processes)
    finally:
        if task_id() is None:
            work.over.set()
            work.join(10)
            print(f"the parent's pool survived {work.crashes} crashes", flush=True)
    prctl.set_parent_death_signal(signal.SIGKILL)  # Tornado's parent does not tell its children that it ends


def main(port: str, processes: str) -> None:
    sockets = bind_sockets(int(port), "127.0.0.1")
    if processes != "1":
        fork(int(processes))
    asyncio.run(serve(sockets))
    pool.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
