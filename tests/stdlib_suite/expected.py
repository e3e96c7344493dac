"""The tests of CPython's suite that differ here, each with its reason."""

from __future__ import annotations

# Tests of what becomes of a pool whose worker died. There the standard's policy is asked for (on_crash="break");
# our default isolates the crash.
BREAKS = frozenset({})

# (test, start methods or None for all): reason. A test that is listed here and passes is reported, too.
DIFFERS: dict[str, tuple[str, tuple[str, ...] | None]] = {}
