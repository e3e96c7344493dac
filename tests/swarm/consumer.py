"""A swarm's consumer of a queue, three of whose four nodes have a fault each: one hangs, one leaks, one crashes."""

from __future__ import annotations

import signal
import time
from itertools import count
from typing import Any

from tests.swarm import queues

AT_A_TIME = 10
HANGS, LEAKS, CRASHES = 1, 2, 3  # the numbers of nodes
LEAK = 1 << 20  # bytes that stay behind each time


def run(node: Any, place: str) -> None:
    """Handle messages until none is left, in whichever node."""
    queue = queues.opened(place)
    queue.give_back(node.id)
    kept: list[bytearray] = []
    for turn in count():
        if node.stopping.is_set() or (node.quiet.is_set() and queue.is_empty()):
            return
        node.healthy()
        messages = queue.claim(node.id, AT_A_TIME)
        if not messages:
            if queue.is_empty():
                return
            node.stopping.wait(0.02)  # somebody else's may come back
            continue
        misbehave(node, turn, kept)
        queue.acknowledge(node.id, messages)


def misbehave(node: Any, turn: int, kept: list[bytearray]) -> None:
    """Do what each faulty node does, with messages claimed and not yet acknowledged."""
    if node.id == HANGS and node.attempt <= 2 and turn >= 5:
        if node.attempt == 1:
            time.sleep(3600)
        sum(range(1 << 60))  # in C: no Python code runs any more, not even a handler
    elif node.id == LEAKS:
        kept.append(bytearray(b"x") * LEAK)
    elif node.id == CRASHES and node.attempt <= 3 and turn == 10:
        signal.raise_signal(signal.SIGSEGV)
    time.sleep(0.01)  # the work: messages are to be left when a node has hung, and its next process hangs, too
