"""The page of the hosts: what one run writes of it, and what it leaves as another one has written it."""

from __future__ import annotations

import re

import pytest

from tests.hosts import page

NEAR, SWARMS, FAR = (f"\n## {part.title}\n" for part in page.PARTS)


def seen(place: str, what: str) -> page.Rows:
    rows = page.Rows()
    for standard in (True, False):
        rows.add(place=place, section="a host", title=what, standard=standard, when="call", seen=None, left=0)
    return rows


@pytest.mark.parametrize("order", [1, -1])
def test_each_run_writes_its_own_part(order):
    near = seen("tests/hosts/test_uwsgi.py:000001", "near")
    far = seen("tests/hosts/far/test_apache.py:000001", "far")
    text = ""
    for rows in [near, far, near][::order]:
        text = rows.as_page(text)
    assert text.startswith(page.BEGINNING + NEAR)
    assert len(re.findall("^# ", text, re.MULTILINE)) == 1
    assert (text.count(NEAR), text.count("| near | works | works |")) == (1, 1)
    before, after = text.split(FAR)
    assert "| near |" in before
    assert after.endswith("| far | works | works |\n")
    assert far.as_page(text) == text


def test_a_row_that_is_gone_is_not_kept():
    text = seen("tests/hosts/far/test_apache.py:000001", "old").as_page()
    assert "old" not in seen("tests/hosts/far/test_apache.py:000002", "new").as_page(text)


def test_the_column_names_what_a_part_is_compared_with():
    text = seen("tests/hosts/swarms/test_gunicorn.py:000001", "swarm").as_page()
    assert text.startswith(page.BEGINNING + SWARMS)
    assert "| case | `multiprocessing.Process`, by hand | pidfdpool |" in text
    assert "`multiprocessing.Process`" not in seen("tests/hosts/test_gunicorn.py:000001", "near").as_page()
