"""The scripts that CPython's tests start: they are to use our pools, too."""

from __future__ import annotations

from typing import Any


def begin_scripts_with(prelude: str) -> None:
    """Have every script that `assert_python_ok` runs begin with this code. In a process that runs CPython's tests."""
    from test.support import script_helper

    standard = script_helper.assert_python_ok

    def assert_python_ok(*arguments: str, **options: Any) -> Any:
        changed = list(arguments)
        if "-c" in changed:
            changed[changed.index("-c") + 1] = prelude + changed[changed.index("-c") + 1]
        return standard(*changed, **options)

    script_helper.assert_python_ok = assert_python_ok
