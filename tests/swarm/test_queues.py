"""The queues of the example keep what they promise, without a swarm."""

from __future__ import annotations

import pytest

from tests.swarm import queues


@pytest.fixture(params=["file", "redis"])
def queue(request, tmp_path):
    place = str(tmp_path / "queue.db") if request.param == "file" else request.getfixturevalue("redis_server")
    queue = queues.opened(place)
    yield queue
    queue.close()


def test_what_was_claimed_and_not_acknowledged_comes_back(queue):
    queue.put(range(5))
    assert queue.claim(1, 3) == [0, 1, 2]
    assert queue.claim(2, 3) == [3, 4]
    queue.acknowledge(1, [0, 1])
    queue.give_back(1)
    assert not queue.is_empty()
    assert queue.claim(2, 3) == [2]
    queue.acknowledge(2, [2, 3, 4])
    assert queue.is_empty()
    assert sorted(queue.handled()) == [0, 1, 2, 3, 4]
