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
OPTIONS = ("--nodes", "4", "--report-timeout", "1", "--start-timeout", "30", "--stop-timeout", "0.5")
LIMITS = ("--restart-pause", "0.1", "--max-memory", "64M", "--memory-interval", "0.1")


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
    ended = {node: (attempts, deaths) for node, (attempts, _, deaths) in table.items()}
    assert ended[0] == (1, "exited with code 0")
    hung = "exited with code 143 (silent), killed by SIGKILL (silent), exited with code 0"
    assert ended[consumer.HANGS] == (3, hung), done.stdout
    assert ended[consumer.LEAKS][0] > 1, done.stdout
    assert "exited with code 0 (memory)" in ended[consumer.LEAKS][1], done.stdout
    assert ended[consumer.CRASHES] == (4, "3 x killed by SIGSEGV, exited with code 0"), done.stdout
