"""What many tests of the loop begin with."""

from __future__ import annotations

import pytest

from pidfdpool.loop.poller import Poller


@pytest.fixture
def poller():
    poller = Poller()
    yield poller
    poller.close()
