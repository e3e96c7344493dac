"""The page that compares a swarm with others names a test for each thing that it says of ours."""

from __future__ import annotations

import re

from tests.house.pages import DOCS, ROOT, section_of

FOLDERS = ("tests/swarm", "tests/cli/swarm")


def test_each_test_that_is_named_is_there():
    rows = [
        line for line in section_of((DOCS / "swarm.md").read_text(), "Beside others").split("\n") if "| `" in line
    ]
    defined = {
        name
        for folder in FOLDERS
        for path in (ROOT / folder).glob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert rows
    for row in rows:
        named = re.findall(r"`([^`]+)`", row.rstrip(" |").rpartition("|")[2])
        assert named, row
        for name in named:
            assert name in defined or (name.startswith("tests/") and (ROOT / name).exists()), name
