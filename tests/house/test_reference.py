"""The reference of the site has every public name, and no other."""

from __future__ import annotations

import importlib
import re

import pytest

from tests.house.pages import DOCS

REFERENCE = DOCS / "reference"
DIRECTIVE = re.compile(r"^\.\. auto(?:class|exception|function|data):: (\S+)$", re.MULTILINE)
MODULES = re.compile(r"^\.\. (?:automodule|currentmodule):: (\S+)$", re.MULTILINE)
NEEDS = {"pidfdpool.joblib": "joblib", "pidfdpool.dask": "distributed"}  # libraries that are not always here
SAID_IN_PROSE = {
    "pidfdpool": {"ProcessPoolExecutor", "__version__"},
    "pidfdpool.multiprocessing": {"TimeoutError"},  # the standard library's own
}


def documented(module):
    """Return the names of a module that have an entry in some page."""
    names = set()
    for page in REFERENCE.glob("*.rst"):
        # Each entry belongs to the module that was named last.
        pieces = MODULES.split(page.read_text())
        for current, text in zip(pieces[1::2], pieces[2::2], strict=True):
            if current == module:
                names |= {name for name in DIRECTIVE.findall(text) if "." not in name}
    return names


@pytest.mark.parametrize(
    "module",
    ["pidfdpool", "pidfdpool.pidfd", "pidfdpool.multiprocessing", "pidfdpool.joblib", "pidfdpool.dask"],
)
def test_each_public_name_has_an_entry(module):
    if module in NEEDS:
        pytest.importorskip(NEEDS[module])
    public = set(importlib.import_module(module).__all__)
    assert documented(module) == public - SAID_IN_PROSE.get(module, set())


def test_each_page_is_in_the_index():
    index = (REFERENCE / "index.rst").read_text()
    assert {page.stem for page in REFERENCE.glob("*.rst")} - {"index"} == set(
        re.findall(r"^   (\w+)$", index, re.MULTILINE)
    )
