"""What tests of the pool share."""

from __future__ import annotations

import pytest

from pidfdpool import PidfdPoolExecutor
from tests.pool import calls


@pytest.fixture
def pool(way):
    """Give a pool of two workers that has been used."""
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        pool.submit(calls.double, 1).result()
        yield pool
