"""What the tests of the example need."""

from __future__ import annotations

import pytest

from tests.swarm import redis_server as servers


@pytest.fixture
def redis_server(tmp_path):
    """Give the URL of a Redis server of the test's own."""
    with servers.started(tmp_path) as url:
        yield url
