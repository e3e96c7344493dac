"""Runs the installed tests of another library, with a plugin of ours that puts our pools in."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

SECONDS = 900.0


def run(folder, plugin: str, *arguments: str, environment: dict[str, str]) -> tuple[int, dict[str, list[str]]]:
    """Run tests in a process of their own; return how many passed, and the messages of those that did not, by name.

    arguments: of pytest, the modules among them.
    """
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", plugin, "-p", "no:cacheprovider"]
    command += ["--timeout", "120", f"--junitxml={report}", "--pyargs", *arguments]
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert report.exists(), ended.stdout[-4000:] + ended.stderr
    failed: dict[str, list[str]] = {}
    passed = 0
    for case in ElementTree.parse(report).iter("testcase"):
        wrong = [child for child in case if child.tag in ("failure", "error")]
        passed += not list(case)
        if wrong:
            failed.setdefault(case.attrib["name"].partition("[")[0], []).append(wrong[0].attrib["message"])
    return passed, failed
