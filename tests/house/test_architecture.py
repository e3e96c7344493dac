"""docs/architecture.md names what is there: its picture is that of the imports, its walks lead through the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import pidfdpool
from tests.house.pages import DOCS, PAGES, ROOT, blocks_of, name_of, prose_of, section_of
from tests.house.test_imports import HOUSE

PACKAGE = Path(pidfdpool.__file__).parent
TEXT = (DOCS / "architecture.md").read_text()
WALKS = ("The life of a task", "The death of a worker")
FILE = re.compile(r"(?:\w+/)*\w+\.py")
NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?")


def picture() -> dict[str, set[str]]:
    """Return the rooms of the page's picture, each with those that it may import."""
    block = blocks_of(section_of(TEXT, "The rooms"))[0]
    rows = [line.partition("->") for line in block.text.splitlines()]
    return {room.strip(): set(below.split()) for room, _, below in rows}


def test_the_picture_of_the_page_is_the_one_that_the_imports_are_held_to():
    assert picture() == HOUSE


def test_the_arrows_of_the_picture_point_down():
    seen: set[str] = set()
    for room, below in picture().items():
        if room != "former_paths":
            assert not below & seen, f"{room} stands below what it imports"
        seen.add(room)


@pytest.mark.parametrize("room", sorted(set(HOUSE) - {"former_paths"}))
def test_the_page_says_what_each_room_is_in_a_few_lines(room):
    text = section_of(TEXT, room).strip()
    assert 3 <= len(text.splitlines()) <= 6


def names_in(path: Path) -> set[str]:
    """Return what a file defines: functions, classes, constants and attributes; of a class with its name before."""
    found: set[str] = set()

    def look(node: ast.AST, owner: str) -> None:
        for child in ast.iter_child_nodes(node):
            names: list[str] = []
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names = [child.name]
            elif isinstance(child, ast.Assign | ast.AnnAssign):
                targets = child.targets if isinstance(child, ast.Assign) else [child.target]
                names = [getattr(target, "id", getattr(target, "attr", "")) for target in targets]
            for name in names:
                found.update({name, f"{owner}.{name}"} if owner else {name})
            look(child, child.name if isinstance(child, ast.ClassDef) else owner)

    look(ast.parse(path.read_text()), "")
    return found


def codes_of(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


def check_names(text: str) -> None:
    """Fail if a piece of text names a file that is not there, or a name that none of the files it names defines."""
    files = [code for code in codes_of(text) if FILE.fullmatch(code)]
    missing = [name for name in files if not (PACKAGE / name).is_file()]
    assert not missing, f"there is no such file: {missing}"
    defined = set(pidfdpool.__all__).union(*(names_in(PACKAGE / name) for name in files))
    named = [code for code in codes_of(text) if code not in files and NAME.fullmatch(code)]
    unknown = [name for name in named if name not in defined]
    assert not unknown, f"none of {files} defines {unknown}"


def steps_of(title: str) -> list[str]:
    return re.split(r"^\d+\. ", section_of(TEXT, title), flags=re.MULTILINE)[1:]


STEPS = [(title, number, step) for title in WALKS for number, step in enumerate(steps_of(title), start=1)]


@pytest.mark.parametrize(("title", "number", "step"), STEPS, ids=[f"{title}-{number}" for title, number, _ in STEPS])
def test_each_step_of_the_walks_names_what_is_there(title, number, step):
    files = [code for code in codes_of(step) if FILE.fullmatch(code)]
    assert files, "a step says in which file it happens"
    check_names(step)


def test_both_walks_have_steps():
    for title in WALKS:
        assert len(steps_of(title)) >= 7


@pytest.mark.parametrize("row", [row for row in section_of(TEXT, "Where is it?").splitlines() if ".py`" in row])
def test_each_answer_names_what_is_there(row):
    check_names(row)


def test_the_files_that_the_rooms_are_said_to_have_are_there():
    for room in HOUSE.keys() - {"former_paths"}:
        for name in codes_of(section_of(TEXT, room)):
            if FILE.fullmatch(name):
                assert (PACKAGE / room / name).is_file(), name


BESIDE_A_FILE = re.compile(r"`([A-Za-z_][\w.]*)`\s(?:in|of|\()\s?`((?:\w+/)+\w+\.py)`")


def found(name: str) -> Path | None:
    """Return the file that a page names, which is one of the package, or one beside it."""
    return next((path for path in (PACKAGE / name, ROOT / name) if path.is_file()), None)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_a_page_names_are_there_and_define_what_is_named_beside_them(page):
    prose = prose_of(page.read_text())
    named = {code for code in codes_of(prose) if FILE.fullmatch(code) and "/" in code}
    assert sorted(name for name in named if found(name) is None) == []
    for name, file in BESIDE_A_FILE.findall(prose):
        assert name in names_in(found(file)), f"{file} does not define {name}"
