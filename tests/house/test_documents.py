"""The pages hang together: links lead somewhere, and the words are those of the glossary."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pidfdpool import __version__
from tests.house.pages import (
    DOCS,
    PAGES,
    REPOSITORY,
    ROOT,
    anchors_of,
    headings_of,
    inlined,
    link_from,
    links_of,
    name_of,
    prose_of,
    section_of,
    text_of,
)

GLOSSARY = DOCS / "glossary.md"
TERMS = re.findall(r"^### (.*)$", GLOSSARY.read_text(), re.MULTILINE)
# Pages that are written by a run of the tests or benchmarks: their prose is in the code that writes them.
GENERATED = {"docs/hosts.md", "docs/performance.md", "docs/performance-newest.md", "docs/scripts.md"}
# The second is read beside docs/performance.md, which links its words.
HAS_NO_WORDS_OF_ITS_OWN = {"CHANGELOG.md", "performance-newest.md"}
SPEAKS_THE_WORDS = [page for page in PAGES if page != GLOSSARY and page.name not in HAS_NO_WORDS_OF_ITS_OWN]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page):
    for link in links_of(text_of(page)):
        if re.match("[a-z]+:", link):
            assert link.startswith("https://"), link
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors_of(target.read_text()), link


def test_links_of_the_readme_work_where_the_other_files_are_not():
    links = links_of((ROOT / "README.md").read_text())
    assert len([link for link in links if link.startswith(f"{REPOSITORY}/")]) > 20
    assert [link for link in links if not link.startswith("https://")] == []


def test_the_glossary_explains_each_term_in_a_sentence_or_two():
    assert len(TERMS) == len(set(TERMS))
    for term in TERMS:
        text = " ".join(section_of(GLOSSARY.read_text(), term).split())
        assert 1 <= len(re.findall(r"[.!](?= |$)", text)) <= 4, term


def first_use(term: str, prose: str) -> re.Match[str] | None:
    words = r"\s+".join(map(re.escape, term.split()))
    if term.endswith("ing"):
        words = f"{words.removesuffix('ing')}(?:ing|ed)?"  # reaping: reap, reaps, reaped
    return re.search(rf"(?<![\w/.-]){words}s?(?![\w/-])", prose, re.IGNORECASE)


def plain_prose(page: Path) -> str:
    """Return the page's sentences, without headings, tables and code, and with each link as [text](target)."""
    lines = [line for line in inlined(text_of(page)).split("\n") if not line.startswith(("#", "|"))]
    return re.sub(r"`[^`]*`", "`", "\n".join(lines))


@pytest.mark.parametrize("term", TERMS)
def test_each_term_of_the_glossary_is_used_somewhere(term):
    assert any(first_use(term, plain_prose(page)) for page in SPEAKS_THE_WORDS)


def unlinked_terms(page: Path) -> list[str]:
    """Return the terms that a page uses for the first time without a link to what they mean."""
    prose = plain_prose(page)
    glossary = link_from(page, GLOSSARY)
    found = []
    for term in TERMS:
        anchor = term.replace(" ", "-")
        linked = re.compile(rf"\[[^]]*\]\({re.escape(glossary)}#{anchor}\)")
        bare = first_use(term, re.sub(r"\[[^]]*\]\([^)]*\)", lambda link: "_" * len(link[0]), prose))
        link = linked.search(prose)
        if bare is not None and (link is None or link.start() > bare.start()):
            found.append(f"{term}: ...{prose[max(0, bare.start() - 40) : bare.end() + 20]!r}")
    return found


@pytest.mark.parametrize("page", SPEAKS_THE_WORDS, ids=name_of)
def test_a_page_links_each_term_to_the_glossary_where_it_first_uses_it(page):
    assert unlinked_terms(page) == []


def test_the_changelog_tells_of_this_version():
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = [heading for heading in headings_of(text) if heading.startswith("[")]
    assert versions[0] == "[Unreleased]"
    assert re.fullmatch(rf"\[{re.escape(__version__)}\] - \d{{4}}-\d\d-\d\d", versions[1])


@pytest.mark.parametrize("page", [page for page in PAGES if name_of(page) not in GENERATED], ids=name_of)
def test_lines_are_not_too_long(page):
    for line in prose_of(page.read_text()).split("\n"):
        assert len(line) <= 118 or line.startswith("|") or "](" in line, line
