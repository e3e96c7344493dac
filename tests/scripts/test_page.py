"""The page puts the runs of several versions of Python into one table."""

from __future__ import annotations

import json

import pytest

from tests.scripts import page, rows
from tests.scripts.kinds import SECTIONS

SECTION = "Functions"
KIND = SECTIONS[SECTION][0]


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"3.11": "works", "3.13": "works"}, "works"),
        ({"3.11": "hangs", "3.13": "hangs"}, "hangs"),
        ({"3.11": "works", "3.13": "hangs", "3.14": "works", "3.15": "hangs"}, "works; 3.13, 3.15: hangs"),
        ({"3.11": "hangs", "3.13": "works"}, "works; 3.11: hangs"),
        ({"3.11": "hangs", "3.13": "TypeError"}, "3.11: hangs; 3.13: TypeError"),
        ({"3.11": "works", "3.15": None}, "works; 3.15: not run"),
        ({"3.11": "TypeError: old words", "3.15": "TypeError: new words"}, "TypeError: new words"),
        ({"3.11": "TypeError: a", "3.13": "works", "3.15": "TypeError: b"}, "works; 3.11, 3.15: TypeError: b"),
    ],
)
def test_a_cell_tells_versions_only_where_they_differ(seen, said):
    assert page.cell(seen) == said


def test_addresses_and_modules_of_errors_are_left_out():
    one = "_pickle.PicklingError: Can't pickle <function work at 0x7f8b650f9940>: it's not found"
    other = "_pickle.PicklingError: Can't pickle <function work at 0x7fc66c4a9940>: it's not found"
    assert page.cell({"3.11": one, "3.13": other}) == "PicklingError: Can't pickle <function work>: it's not found"


def test_a_long_error_is_cut():
    assert len(page.shortened(f"ValueError: {'long ' * 100}")) <= page.LONGEST


def run_of(python, **seen):
    run = rows.Run(python, "6.1", {"numpy": "2"})
    for name, said in seen.items():
        run.seen[SECTION, KIND.title, name.replace("_", "-")] = said
    return run


def test_the_page_has_a_row_for_each_kind_that_was_run(tmp_path):
    runs = [
        run_of("3.11.7", standard_fork="works", ours="works"),
        run_of("3.15.2", standard_fork="hangs", ours="works"),
    ]
    text = page.as_page(runs)
    assert f"| {KIND.title} | works; 3.15: hangs | not run | works |" in text
    assert "| 3.11.7 | 1 | 1 | 0 | 1 |" in text


def test_a_promise_is_broken_only_where_the_standard_pool_works_in_both_ways():
    both = run_of("3.11.7", standard_fork="works", standard_spawn="works", ours="hangs")
    only_fork = run_of("3.15.2", standard_fork="works", standard_spawn="hangs", ours="hangs")
    assert list(page.broken_promises([both, only_fork])) == [f"3.11.7: {SECTION}: {KIND.title}: hangs"]


def test_a_file_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "rows.json"
    seen = [{"section": SECTION, "title": KIND.title, "contender": "ours", "seen": "works"}]
    rows.write(str(path), seen)
    assert json.loads(path.read_text())["rows"] == seen
    assert rows.read(str(path)).seen == {(SECTION, KIND.title, "ours"): "works"}
    assert page.main([str(tmp_path), "--page", str(tmp_path / "page.md")]) == 0
    assert KIND.title in (tmp_path / "page.md").read_text()
