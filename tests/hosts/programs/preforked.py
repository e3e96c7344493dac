"""A WSGI application whose pool is made and used while the application is loaded, which may be before the forks.

uWSGI forks without the interpreter's lock. If another thread has it at that moment, the child waits for ever,
whatever that thread belongs to. So this is loaded when the others sleep, as docs/forking.md advises.
"""

from __future__ import annotations

import json
import os
import threading
import time

from tests.hosts.programs import tasks
from tests.hosts.programs.contender import ProcessPoolExecutor
from tests.hosts.programs.web import answer

_pool = ProcessPoolExecutor(2)
_loaded = {
    "by": os.getpid(),
    "sum": sum(_pool.map(tasks.double, range(20))),
    "worker": _pool.submit(tasks.pid).result(),
}


def _others_at_work():
    """Return how often each other thread has come to rest so far, and whether it rests now."""
    found = []
    for task in set(os.listdir("/proc/self/task")) - {str(threading.get_native_id())}:
        with open(f"/proc/self/task/{task}/status") as file:
            said = dict(line.split(":\t", 1) for line in file if ":\t" in line)
        found.append((task, said["State"][0], said["voluntary_ctxt_switches"]))
    return sorted(found)


def _wait_until_others_sleep(looks=20):
    """Return when the other threads have slept through so many looks. Between two of them the lock is free."""
    deadline, before, same = time.monotonic() + 10, None, 0
    while same < looks and time.monotonic() < deadline:
        time.sleep(0.002)
        now = _others_at_work()
        same = same + 1 if now == before and all(state == "S" for _, state, _ in now) else 0
        before = now


_wait_until_others_sleep()


def app(environ, start_response):
    """Answer as all do; /loaded tells which process has loaded this module, and a pool worker of that time."""
    path = environ["PATH_INFO"]
    said = {**_loaded, "pid": os.getpid()} if path == "/loaded" else answer(_pool, path, environ["QUERY_STRING"])
    body = json.dumps(said).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
