"""The worked example: four consumers of a queue, of which one hangs, one leaks and one crashes; nothing is lost.

The supervisor is the program, `python -m pidfdpool swarm`. The queue is a file, or Redis where it is installed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter

import pytest

from tests.conditions import ROOT
from tests.swarm import consumer, queues

MESSAGES = 10_000
OPTIONS = ("--nodes", "4", "--report-timeout", "1", "--stop-timeout", "0.5", "--restart-pause", "0.1")
LIMITS = ("--max-memory", "64M", "--memory-interval", "0.1")


@pytest.mark.parametrize("kind", ["file", "redis"])
def test_each_message_is_handled_though_nodes_hang_leak_and_crash(kind, tmp_path, request):
    place = str(tmp_path / "queue.db") if kind == "file" else request.getfixturevalue("redis_server")
    queue = queues.opened(place)
    try:
        queue.put(range(MESSAGES))
        command = [sys.executable, "-m", "pidfdpool", "swarm", "tests.swarm.consumer:run", place, *OPTIONS, *LIMITS]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
        handled = Counter(queue.handled())
        assert set(handled) == set(range(MESSAGES))
        assert queue.is_empty()
    finally:
        queue.close()
    table = {
        int(node): (int(attempts), state, deaths)
        for node, attempts, state, deaths in re.findall(r"^ *(\d+) +(\d+) +(\w+) +(.*)$", done.stdout, re.MULTILINE)
    }
    assert {state for _, state, _ in table.values()} == {"done"}, done.stdout
    assert table[0] == (1, "done", "exit code 0")
    assert table[consumer.HANGS] == (3, "done", "2 x killed by SIGTERM, exit code 0"), done.stdout
    assert table[consumer.LEAKS][0] > 1, done.stdout
    assert table[consumer.CRASHES] == (4, "done", "3 x killed by SIGSEGV, exit code 0"), done.stdout
    assert f"node {consumer.LEAKS} " in done.stderr
