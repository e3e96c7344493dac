"""Pid 1 of a pid namespace: gives the numbers of dead processes to innocent ones, and sees what comes to those.

An innocent leads a process group, whose number is a dead one's, too, and has one other process in it. Both note every
signal that can be caught, and the others by their end. The kernel is told which number to give next
(/proc/sys/kernel/ns_last_pid). Arguments: the name of a function below, and what the host does about SIGCHLD.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

LAST = "/proc/sys/kernel/ns_last_pid"
ELSEWHERE = 10_000  # from here on are numbers that nobody has had; the next hundred for each innocent's other process


def until(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.002)


def reap() -> None:
    """Reap what has died, as an init does; processes whose parent is gone come to pid 1."""
    with suppress(ChildProcessError):
        while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG) is not None:
            pass


def exists(number: int) -> bool:
    """Return whether a process has the number, be it a zombie."""
    reap()
    return os.path.exists(f"/proc/{number}")


def next_is(number: int) -> None:
    """Have the next process get this number."""
    with open(LAST, "w") as file:
        file.write(str(number - 1))


class Innocents:
    """The processes that have got dead ones' numbers."""

    def __init__(self) -> None:
        self._ears: dict[int, list[int]] = {}

    def take(self, number: int) -> None:
        """Have an innocent take the number, as soon as it is free."""
        until(lambda: not exists(number) and self._try(number), f"taking {number}")

    def _try(self, number: int) -> bool:
        pipes = [os.pipe(), os.pipe()]
        next_is(number)
        pid = os.fork()
        if not pid:
            if os.getpid() != number:
                os._exit(0)
            self._be_innocent([writer for _, writer in pipes])
        for _, writer in pipes:
            os.close(writer)
        if pid != number:
            for reader, _ in pipes:
                os.close(reader)
            os.waitpid(pid, 0)
            return False
        self._ears[number] = [reader for reader, _ in pipes]
        for reader in self._ears[number]:
            assert os.read(reader, 1) == b"\0", "it has its handlers"
        return True

    def _be_innocent(self, pipes: list[int]) -> None:
        os.setpgid(0, 0)
        next_is(ELSEWHERE + 100 * len(self._ears))
        mine = pipes.pop() if os.fork() else pipes.pop(0)
        os.close(pipes.pop())
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
            with suppress(OSError, ValueError):
                signal.signal(number, lambda caught, _: os.write(mine, bytes([caught])))
        os.write(mine, b"\0")
        while True:
            signal.pause()

    def harmed(self) -> list[str]:
        """Return the signals that came to innocents."""
        found = []
        for ears in self._ears.values():
            for ear in ears:
                while select.select([ear], [], [], 0)[0]:
                    heard = os.read(ear, 1)
                    found.append(signal.Signals(heard[0]).name if heard else "SIGKILL")
                    if not heard:
                        break
        return found


class Commanded:
    """The host."""

    def __init__(self, sigchld: str, program: str = "tests.hosts.programs.commanded") -> None:
        command = [sys.executable, "-m", program, sigchld]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid

    def tell(self, name: str, *arguments: object) -> None:
        self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._process.stdin.flush()

    def __call__(self, name: str, *arguments: object) -> object:
        """Return the host's answer."""
        self.tell(name, *arguments)
        return self.answer()

    def answer(self) -> object:
        return json.loads(self._process.stdout.readline())

    def stand_still(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        until(lambda: _state(self.pid) == "T", "the host is stopped")

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


def _stat(pid: int) -> list[str]:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()


def _state(pid: int) -> str:
    return _stat(pid)[0]


def parent(pid: int) -> int:
    return int(_stat(pid)[1])


# ---- what happens ------------------------------------------------------------------------------------------


def while_the_host_stands_still(host: Commanded, innocents: Innocents) -> None:
    """Kill a worker; if its number is free before the host is told, have it taken."""
    victim, _ = host("workers")
    host.stand_still()
    os.kill(victim, signal.SIGKILL)
    until(lambda: not exists(victim) or _state(victim) == "Z", "the worker is dead")
    with suppress(TimeoutError):
        until(lambda: not exists(victim), "somebody reaps it", seconds=1.0)
        innocents.take(victim)
    host.go_on()
    assert host("work")
    assert host("work")
    host("end")


def _worker_dies_unseen(host: Commanded, innocents: Innocents, victim: int) -> None:
    host.stand_still()
    os.kill(victim, signal.SIGKILL)
    innocents.take(victim)


def every_way_of_dying(host: Commanded, innocents: Innocents) -> None:
    """End workers by a crash, a timeout and a kill, and have the number of each taken."""
    victim, _ = host("workers")
    template = parent(victim)
    for number in range(host.pid + 1, template):  # the launcher's is among these
        if not exists(number):
            innocents.take(number)
    _worker_dies_unseen(host, innocents, victim)
    host.go_on()
    before = host("workers")
    assert host("time_out") == "TaskTimeout"
    after = host("workers")
    (timed_out,) = set(before) - set(after)
    innocents.take(timed_out)
    busy = host("occupy")
    host("kill_tasks")
    assert [name for name, *_ in host("outcomes")] == ["TaskKilled"] * 2
    host("workers")  # from here on the template has no reason to fork, and to take the numbers itself
    for number in busy:
        innocents.take(number)
    # A worker is gone, and the host acts on it before it can know.
    busy = host("occupy")
    _worker_dies_unseen(host, innocents, busy[0])
    host.tell("kill_tasks")
    host.go_on()
    host.answer()
    host("outcomes")
    host("workers")
    innocents.take(busy[1])
    assert host("work")


def ends(how: str) -> Callable[[Commanded, Innocents], None]:
    """Return the scenario in which the pool ends in this way while one of its workers' numbers is taken."""

    def scenario(host: Commanded, innocents: Innocents) -> None:
        busy = host("occupy")
        template = parent(busy[0])
        _worker_dies_unseen(host, innocents, busy[0])
        if how == "host dies":
            os.kill(host.pid, signal.SIGKILL)
            for number in (host.pid, busy[1], template):
                innocents.take(number)
            return
        host.tell(how)
        host.go_on()
        host.answer()
        for number in (busy[1], template):
            innocents.take(number)

    return scenario


def template_dies(host: Commanded, innocents: Innocents) -> None:
    """End all of the pool's processes at once, and have their numbers taken before the host is told."""
    workers = host("workers")
    template = parent(workers[0])
    host.stand_still()
    os.kill(template, signal.SIGKILL)
    for number in (template, *workers):
        innocents.take(number)
    host.go_on()
    assert host("work")
    host("kill_workers")


def a_new_worker_has_the_number(host: Commanded, _innocents: Innocents) -> None:
    """Print the outcomes of tasks in two workers that had the same number, one after the other."""
    host("workers")
    host("watch")
    told = []
    number = None
    for _ in range(2):
        busy = host("occupy")
        number = busy[0] if number is None else number
        assert number in busy, (number, busy)
        place = busy.index(number)
        host.stand_still()
        os.kill(number, signal.SIGKILL)
        until(lambda gone=number: not exists(gone), "the template has reaped it")
        next_is(number)
        host.go_on()
        until(lambda taken=number: exists(taken), "a new worker has its number")
        told.append(host_outcome(host, place))
    print(json.dumps({"number": number, "told": told, "deaths": host("deaths")}))
    assert host("work")
    host("end")


def host_outcome(host: Commanded, place: int) -> object:
    """Return what became of the task in the worker that died; the other one is killed on request."""
    host("kill_tasks")
    return host("outcomes")[place]


SCENARIOS = {
    "while the host stands still": while_the_host_stands_still,
    "every way of dying": every_way_of_dying,
    "template dies": template_dies,
    "new worker": a_new_worker_has_the_number,
    **{how: ends(how) for how in ("kill_workers", "terminate_workers", "host dies")},
}


def main(name: str, sigchld: str) -> None:
    host, innocents = Commanded(sigchld), Innocents()
    SCENARIOS[name](host, innocents)
    # What was sent before this has arrived: a signal is pending when kill(2) returns.
    print(json.dumps(innocents.harmed()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
