"""Fixtures for tests about the globals of a script."""

from __future__ import annotations

import sys
import textwrap
import types

import pytest

from pidfdpool.serialization import scripts
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


@pytest.fixture
def script(main, tmp_path):
    """Return a function that runs a script here, and then again in a worker; it returns the worker."""

    def start(text, *, again=True):
        path = tmp_path / "script.py"
        text = textwrap.dedent(text) + '\nif __name__ == "__main__":\n    pass\n'
        path.write_text(text)
        main.__file__ = str(path)
        exec(compile(text, str(path), "exec", dont_inherit=True), vars(main))
        far = FarSide(scripts.Script(str(path), None))
        if again:
            far.run_script(text)
        return far

    return start
