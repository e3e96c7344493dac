"""The pages of the documentation as tests see them: code, prose, headings and links."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *sorted(DOCS.rglob("*.md"))]


# Where the repository can be seen. README links there, because an index of packages shows it without the other files.
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"]
_VIEWS = re.compile(rf"{re.escape(REPOSITORY)}/(?:blob|raw|tree)/main/")


class Block(NamedTuple):
    """A block of code: what language its fence names ("": it is indented, or the fence names none), and where."""

    language: str
    text: str
    line: int  # the first of the text, from 1


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def text_of(page: Path) -> str:
    """Return a page with its links to the repository as links from file to file."""
    folder = os.path.relpath(ROOT, page.parent)
    return _VIEWS.sub("" if folder == "." else f"{folder}/", page.read_text())


def blocks_of(text: str) -> list[Block]:
    """Return the blocks of code of a page, fenced and indented ones, in their order."""
    return [piece for piece in pieces_of(text) if isinstance(piece, Block)]


def prose_of(text: str) -> str:
    """Return the page without its blocks of code."""
    return "\n".join(piece for piece in pieces_of(text) if isinstance(piece, str))


def pieces_of(text: str) -> Iterator[str | Block]:
    """Yield the lines of prose and the blocks of code of a page, in their order."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        line = lines[at]
        if fence := re.fullmatch(r"( *)```(\w*)", line):
            end = lines.index(f"{fence[1]}```", at + 1)
            inside = [inner[len(fence[1]) :] for inner in lines[at + 1 : end]]
            yield Block(fence[2], "\n".join(inside) + "\n", at + 2)
            at = end + 1
        elif line.startswith("    ") and (at == 0 or not lines[at - 1].strip()):
            end = at
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            inside = [inner.removeprefix("    ") for inner in lines[at:end]]
            yield Block("", "\n".join(inside).rstrip("\n") + "\n", at + 1)
            at = end
        else:
            yield line
            at += 1


def link_from(page: Path, target: Path) -> str:
    """Return the relative link by which a page reaches a file."""
    return os.path.relpath(target, page.parent)


def section_of(text: str, title: str) -> str:
    """Return the text under a heading, down to the next heading of its level or above."""
    level, rest = re.search(rf"^(#+) {re.escape(title)}\n(.*)", text, re.MULTILINE | re.DOTALL).groups()
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def headings_of(text: str) -> list[str]:
    return re.findall(r"^#+ (.*)$", prose_of(text), re.MULTILINE)


def anchors_of(text: str) -> set[str]:
    """Return the anchors that a site such as GitHub gives the headings of a page."""
    found: set[str] = set()
    for heading in headings_of(text):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number = 0
        while (numbered := f"{anchor}-{number}" if number else anchor) in found:
            number += 1
        found.add(numbered)
    return found


def inlined(text: str) -> str:
    """Return a page's prose, each link written as [text](target), though the page may name its targets at its end."""
    definition = re.compile(r"^\[([^]]+)\]: (\S+)$", re.MULTILINE)
    prose = prose_of(text)
    targets = {name.lower(): target for name, target in definition.findall(prose)}

    def written_out(link: re.Match[str]) -> str:
        target = targets.get((link[2] or link[1]).lower())
        return link[0] if target is None else f"[{link[1]}]({target})"

    return re.sub(r"\[([^][]+)\](?:\[([^][]*)\])?(?!\()", written_out, definition.sub("", prose))


def links_of(text: str) -> list[str]:
    """Return where the links and pictures of a page lead."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", inlined(text)))
