"""The scripts of findings/ and the page that lists them. No test runs them: what they try is not ours."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.house.pages import DOCS, ROOT

SCRIPTS = sorted((ROOT / "findings").glob("*.sh"))
ROWS = re.findall(
    r"^\| \[(.+)\]\(\.\./findings/([\w.-]+)\) \| .+ \|$", (DOCS / "findings.md").read_text(), re.MULTILINE
)


def first_line(text: str) -> str:
    """Return the sentence behind the line that names the shell."""
    return text.split("\n")[1].removeprefix("# ").removesuffix(".")


def test_the_page_lists_each_script_by_its_first_line():
    said = {name: text.replace("`", "") for text, name in ROWS}
    assert said == {script.name: first_line(script.read_text()).replace("`", "") for script in SCRIPTS}
    assert [name for _, name in ROWS] == sorted(said)


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_a_script_can_be_run_says_what_was_seen_and_knows_nothing_of_this_package(script):
    text = script.read_text()
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=20)
    assert "pidfdpool" not in text
    comment = text.partition("\nset -euo pipefail\n")[0]
    assert re.search(r"^# .*\bSeen\b", comment, re.MULTILINE)
    assert re.search(r"^#     \S", comment, re.MULTILINE), "the output that was seen"
    assert "77" in text, "for where it cannot be tried"
    for line in re.findall(r"^.*pip\" install .*$", text, re.MULTILINE):
        for word in re.search(r"install (.*?)(?: 2>|$)", line)[1].split():
            assert word.startswith("--") or re.fullmatch(r"[\w-]+==[\w.]+", word), f"{word} is not pinned"
