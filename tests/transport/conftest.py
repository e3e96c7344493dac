"""What many tests of what goes between processes begin with."""

from __future__ import annotations

import os

import pytest

from pidfdpool.transport import black_box


@pytest.fixture
def box():
    fd = black_box.create()
    yield fd
    os.close(fd)
