"""Fixtures for tests about the globals of a script."""

from __future__ import annotations

import sys
import textwrap
import types

import pytest

from tests.serialization.far_side import FarSide


@pytest.fixture
def main(monkeypatch):
    """Put an empty script in the place of this process's own."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


@pytest.fixture
def run(main):
    """Return a function that runs statements as the script's."""
    return lambda code: exec(textwrap.dedent(code), vars(main))


@pytest.fixture
def far():
    """Return the worker's side; it has received nothing yet."""
    return FarSide()
