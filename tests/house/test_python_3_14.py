"""docs/python-3.14.md: each of its programs with the standard pool and with ours, on the Python that runs the tests.

With the standard pool a program works before 3.14. From 3.14 on it shows the symptom, word for word. With the changed
import it works on all of them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import NamedTuple

import pytest

from tests.conditions import marked
from tests.hosts.notebook import notebook
from tests.house.examples import is_said
from tests.house.pages import DOCS, anchors_of, blocks_of, headings_of, section_of

PAGE = (DOCS / "python-3.14.md").read_text()
BY_FORK_SERVER = sys.version_info >= (3, 14)
NEVER_WORKED = ("A lambda as the task",)
WITHOUT_AN_ERROR = ("What workers log is lost", "A module that the program has changed")
# How a program is given to Python. The others are scripts.
OF_A_NOTEBOOK = "Functions of a notebook, of the prompt, or of python -c"
FROM_STANDARD_INPUT = "A program from standard input"


class Case(NamedTuple):
    """A section of the page: what is seen, the program that shows it, and what it prints when it works."""

    title: str
    symptom: str
    program: str
    prints: str

    def changed(self) -> str:
        """Return the program with the changes that its section tells of."""
        text = self.program.replace("from concurrent.futures import", "from pidfdpool import")
        text = text.replace("from multiprocessing import", "from pidfdpool.multiprocessing import")
        if 'mp_context="fork"' in section_of(PAGE, self.title):
            text = text.replace("ProcessPoolExecutor(2", 'ProcessPoolExecutor(2, mp_context="fork"')
        assert text != self.program
        return text


CASES = [
    Case(title, *(block.text for block in blocks_of(section_of(PAGE, title))))
    for title in headings_of(PAGE)
    if f"(#{next(iter(anchors_of(f'# {title}')))})" in PAGE
]
every_case = pytest.mark.parametrize("case", CASES, ids=[case.title for case in CASES])


def run(case: Case, program: str, folder) -> tuple[int, str, str]:
    """Run a program as its section says; return its exit code, its output, and what went to the other stream."""
    path = folder / "program.py"
    path.write_text(program)
    if case.title == OF_A_NOTEBOOK:
        arguments = ["-c", program]
    else:
        arguments = ["-"] if case.title == FROM_STANDARD_INPUT else [str(path)]
    with path.open() as text:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    return done.returncode, done.stdout, done.stderr


def worked(case: Case, seen: tuple[int, str, str]) -> bool:
    """Return whether the program ended well and printed what the page says; records are on the other stream."""
    code, out, err = seen
    return code == 0 and is_said(case.prints, err + out)


@every_case
def test_the_standard_pool_fails_with_these_words_from_3_14_on(case, tmp_path):
    seen = run(case, case.program, tmp_path)
    if not BY_FORK_SERVER:
        assert worked(case, seen) is (case.title not in NEVER_WORKED), seen
        return
    code, out, err = seen
    if case.title in WITHOUT_AN_ERROR:
        assert (code, out.strip(), err) == (0, case.symptom.strip(), "")
    else:
        assert code == 1
        said = " ".join(err.split())
        for line in case.symptom.splitlines():
            words = re.escape(" ".join(line.removesuffix("...").split())).replace(r"\.\.\.", r"\S*")
            assert re.search(words, said), f"{line!r} is not in\n{err}"


@every_case
def test_the_changed_import_cures_it(case, tmp_path):
    seen = run(case, case.changed(), tmp_path)
    assert worked(case, seen), seen


@pytest.mark.parametrize("changed", [False, True], ids=["standard", "ours"])
def test_functions_of_a_cell(changed, tmp_path):
    (case,) = (case for case in CASES if case.title == OF_A_NOTEBOOK)
    with notebook("ours" if changed else "standard", tmp_path, marked("notebook")) as opened:
        shown = opened.ask("execute", case.changed() if changed else case.program, 30)
        if changed or not BY_FORK_SERVER:
            assert (shown["error"], shown["stdout"]) == ("", case.prints)
        else:
            assert case.symptom.splitlines()[1].endswith(shown["error"])
            assert case.symptom.splitlines()[0] in shown["stderr"] + opened.log()


@pytest.mark.parametrize("changed", [False, True], ids=["standard", "ours"])
def test_functions_at_the_prompt(changed, tmp_path):
    (case,) = (case for case in CASES if case.title == OF_A_NOTEBOOK)
    typed = re.sub(r"\n\n\n+", "\n\n", case.changed() if changed else case.program) + "\n"
    done = subprocess.run(
        [sys.executable, "-i"], cwd=tmp_path, input=typed, capture_output=True, text=True, timeout=60, check=False
    )
    if changed or not BY_FORK_SERVER:
        assert case.prints.strip() in done.stdout
    else:
        assert all(line in done.stderr for line in case.symptom.splitlines())


def test_the_page_is_read():
    assert len(CASES) == 10
    assert {*NEVER_WORKED, *WITHOUT_AN_ERROR, OF_A_NOTEBOOK, FROM_STANDARD_INPUT} <= {case.title for case in CASES}
