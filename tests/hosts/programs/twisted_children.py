"""A Twisted reactor that runs child processes of its own and a pool: `twisted_children.py STORY HANDLERS`.

HANDLERS: "with" the reactor's signal handlers, or "without". Prints as JSON what came of it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.process import reapAllProcesses
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread

from tests.conditions import is_alive
from tests.hosts.programs import tasks
from tests.hosts.programs.contender import ProcessPoolExecutor

CODES = [0, 1, 3, 7, 77, 255]


class Child(ProcessProtocol):
    """A child process; `ended` fires with its exit code, or minus the number of the signal that killed it."""

    def __init__(self, script: str) -> None:
        self.ended: Deferred[int] = Deferred()
        reactor.spawnProcess(self, "/bin/sh", ["sh", "-c", script], env=os.environ)

    def processEnded(self, reason: Any) -> None:  # noqa: N802  Twisted's name
        value = reason.value
        self.ended.callback(value.exitCode if value.signal is None else -value.signal)


def together(pool: Any) -> Any:
    """Run children while the pool works."""
    children = [Child(f"sleep 0.05; exit {code}").ended for code in CODES]
    doubles = [deferToThread(pool.submit(tasks.double, number).result) for number in range(20)]
    return gatherResults([gatherResults(children), gatherResults(doubles)])


@inlineCallbacks
def crashes(pool: Any) -> Any:
    """Run children while workers of the pool die; the pool goes on, and the children's ends are their own."""
    ends, told, doubles = [], [], []
    for code in CODES:
        child = Child(f"sleep 0.05; exit {code}")
        crash = tasks.leave if code % 2 else tasks.die
        try:
            yield deferToThread(pool.submit(crash, code if code % 2 else signal.SIGKILL).result)
        except BrokenProcessPool as error:
            told.append(type(error).__name__)
        ends.append((yield child.ended))
        doubles.append((yield deferToThread(pool.submit(tasks.double, code).result)))
    return [ends, len(told), doubles]


@inlineCallbacks
def terminate_a_worker(pool: Any) -> Any:
    """Send SIGTERM to a worker, which was perhaps forked from here: that is nothing to the reactor."""
    worker = yield deferToThread(pool.submit(tasks.pid).result)
    os.kill(worker, signal.SIGTERM)
    ended = yield deferToThread(_ends, worker)
    status = yield Child("kill -TERM $$").ended
    return [ended, status, reactor.running]


def _ends(pid: int) -> bool:
    deadline = time.monotonic() + 4
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_alive(pid)


def main(story: str, handlers: str) -> None:
    pool = ProcessPoolExecutor(2)

    def report(result: Any) -> None:
        print(json.dumps(result), flush=True)

    def complain(failure: Any) -> None:
        print(json.dumps({"error": f"{failure.type.__name__}: {failure.getErrorMessage()}"}), flush=True)

    def begin() -> None:
        done = globals()[story](pool)
        done.addCallbacks(report, complain)
        done.addBoth(lambda _: reactor.stop())

    if handlers == "without":
        # Nobody tells the reactor of its children's ends then, and it may look for one a moment too early.
        LoopingCall(reapAllProcesses).start(0.02)
    reactor.callWhenRunning(begin)
    reactor.addSystemEventTrigger("after", "shutdown", getattr(pool, "kill_workers", pool.shutdown))
    reactor.run(installSignalHandlers=handlers == "with")


if __name__ == "__main__":
    main(*sys.argv[1:])
