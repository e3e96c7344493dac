"""docs/swarm.md says what the code says: the options and their defaults, the methods, the kinds of events."""

from __future__ import annotations

import inspect
import re

import pytest

from pidfdpool.swarm import EventKind, Swarm
from tests.house.pages import DOCS, section_of

PAGE = (DOCS / "swarm.md").read_text()
DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(Swarm).parameters.items()
    if name not in ("target", "nodes")
}


def rows(heading):
    lines = [line for line in section_of(PAGE, heading).splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


OPTIONS = {row[0].strip("`"): row[1].strip("`") for row in rows("Options")}


def test_every_option_is_on_the_page():
    besides = section_of(PAGE, "Options").split("Besides:")[1]
    assert set(OPTIONS) | set(re.findall(r"`(\w+)`", re.split(r"\.\s", besides)[0])) == set(DEFAULTS)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_default_of_the_page_is_that_of_the_code(name):
    assert OPTIONS[name].replace('"', "'") == repr(DEFAULTS[name])


def test_every_method_is_on_the_page():
    named = {name for row in rows("In the host") for name in re.findall(r"`(\w+)\(", row[0])}
    methods = {name for name, value in vars(Swarm).items() if callable(value) and not name.startswith("_")}
    assert named == methods


def test_every_kind_of_event_is_on_the_page():
    named = {name for row in rows("Events") for name in re.findall(r"[A-Z_]+", row[0])}
    assert named == {kind.name for kind in EventKind}
