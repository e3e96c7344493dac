"""Nodes use the host's resource tracker, as workers do: the same template forks them."""

from __future__ import annotations

import os

import pytest

from tests.conditions import eventually, run_python
from tests.swarm import nodes, swarms
from tests.worker import tracked


def note_tracker(node, folder):
    """Note which tracker this node uses."""
    with open(os.path.join(folder, f"new-{node.attempt}"), "w") as file:
        file.write(str(tracked.tracker_pipe()))
    os.rename(file.name, os.path.join(folder, f"{node.attempt}"))
    nodes.serve(node)


def share_with_nodes(context, folder):
    def noted(attempt):
        path = os.path.join(folder, str(attempt))
        if os.path.exists(path):
            with open(path) as file:
                return int(file.read())
        return None

    with swarms.swarm_of(note_tracker, 1, args=(folder,), mp_context=context) as swarm:
        first = eventually(lambda: noted(1), "it has asked")
        eventually(lambda: swarm.signal(9), "the swarm knows its process")
        second = eventually(lambda: noted(2), "its successor has asked, too")
    assert first == second == tracked.tracker_pipe()


@pytest.mark.parametrize("context", ["spawn", "fork"])
def test_a_node_and_its_successor_use_the_tracker_of_the_host(context, tmp_path):
    code = f"from tests.swarm import test_shared_tracker as t; t.share_with_nodes({context!r}, {str(tmp_path)!r})"
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert "resource_tracker" not in done.stderr
