"""As tests.hosts.programs.numbers, pid 1 of a pid namespace, with a swarm: the numbers of dead nodes are taken."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable

from tests.hosts.programs.numbers import Commanded, Innocents, exists, next_is, parent, until


def _node_dies_unseen(host: Commanded, innocents: Innocents, victim: int) -> None:
    host.stand_still()
    os.kill(victim, signal.SIGKILL)
    innocents.take(victim)


def starts_again(host: Commanded, innocents: Innocents) -> None:
    """Have a node die while the host stands still; it is started again under another number."""
    first, second = host("nodes")
    _node_dies_unseen(host, innocents, first)
    host.go_on()
    found: list[int] = [first]
    while first in found:  # the host may not have noticed yet
        found = host("nodes")
    host("kill")
    for number in (*set(found) - {second}, second):
        innocents.take(number)


def is_asked(host: Commanded, innocents: Innocents) -> None:
    """Ask for signals to nodes when one is dead already, and its number is another process's."""
    first, _ = host("nodes")
    _node_dies_unseen(host, innocents, first)
    host.tell("ask_everything")
    host.go_on()
    host.answer()
    host("stop")


def ends(how: str) -> Callable[[Commanded, Innocents], None]:
    """Return the scenario in which the swarm ends in this way while one of its nodes' numbers is taken."""

    def scenario(host: Commanded, innocents: Innocents) -> None:
        first, second = host("nodes")
        template = parent(first)
        _node_dies_unseen(host, innocents, first)
        if how == "host dies":
            os.kill(host.pid, signal.SIGKILL)
            for number in (host.pid, second, template):
                innocents.take(number)
            return
        host.tell(how)
        host.go_on()
        host.answer()
        for number in (second, template):
            innocents.take(number)

    return scenario


def template_dies(host: Commanded, innocents: Innocents) -> None:
    """End all of the swarm's processes at once, and have their numbers taken before the host is told."""
    nodes = host("nodes")
    template = parent(nodes[0])
    host.stand_still()
    os.kill(template, signal.SIGKILL)
    for number in (template, *nodes):
        innocents.take(number)
    host.go_on()
    host("kill")


def same_number(host: Commanded, _innocents: Innocents) -> None:
    """Have the next process of a node get the number of the one before."""
    first, _ = host("nodes")
    host.stand_still()
    os.kill(first, signal.SIGKILL)
    until(lambda: not exists(first), "the template has reaped it")
    next_is(first)
    host.go_on()
    until(lambda: exists(first), "a new process has its number")
    assert first in host("nodes")
    host("stop")


SCENARIOS = {
    "starts again": starts_again,
    "is asked": is_asked,
    "template dies": template_dies,
    "same number": same_number,
    **{how: ends(how) for how in ("stop", "kill", "host dies")},
}


def main(name: str, sigchld: str) -> None:
    host, innocents = Commanded(sigchld, "tests.hosts.programs.swarms.commanded"), Innocents()
    SCENARIOS[name](host, innocents)
    print(json.dumps(innocents.harmed()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
