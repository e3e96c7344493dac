"""docs/options.md says of every option what the code does: default, range, example, and where it may be given."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.errors import WorkerCrashed
from pidfdpool.scheduler.policy import Policy, PoolOptions, TaskOptions

PAGE = (Path(__file__).parents[2] / "docs" / "options.md").read_text()
HEAD = ["option", "unit", "default", "range", "what happens", "example"]
FIELDS = {field.name: field for field in dataclasses.fields(Policy)}
NAMES = {"WorkerCrashed": WorkerCrashed}
UNITS = {"s", "bytes", "attempts", "classes", "workers", "tasks", "deaths", "threads", ""}
TINY, ROOMY = 1e-9, {"retry_backoff_limit": 1e9, "backoff_limit": 1e9, "max_workers": 65535}


def rows_under(heading: str) -> list[dict[str, str]]:
    """Return the rows of the table under a heading, by column."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert cells[0] == HEAD
    return [dict(zip(HEAD, row, strict=True)) for row in cells[2:]]


def bare(cell: str) -> str:
    return cell.strip("`")


OF_TASKS, OF_POOL = rows_under("For each task"), rows_under("For the pool")
ROWS = {bare(row["option"]): row for row in [*OF_TASKS, *OF_POOL]}


def accepts(name: str, value: object) -> bool:
    """Return whether a policy takes the value, if nothing else contradicts it."""
    others = {other: limit for other, limit in ROOMY.items() if other != name}
    if name in ("retry_backoff_limit", "backoff_limit"):
        others[name.removesuffix("_limit")] = 0
    try:
        Policy(**{"max_workers": 1, **others, name: value})
    except (ValueError, TypeError):
        return False
    return True


def test_every_option_has_one_row_in_the_table_of_its_kind():
    assert [bare(row["option"]) for row in OF_TASKS] == list(TaskOptions.__annotations__)
    assert {bare(row["option"]) for row in OF_POOL} == set(PoolOptions.__annotations__) - set(
        TaskOptions.__annotations__
    ) | {"max_workers"}
    assert len(ROWS) == len(OF_TASKS) + len(OF_POOL) == len(FIELDS)


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "max_workers"])
def test_the_default_of_the_table_is_that_of_the_code(name):
    assert eval(bare(ROWS[name]["default"]), NAMES) == FIELDS[name].default


@pytest.mark.parametrize("name", FIELDS)
def test_the_range_of_the_table_is_that_of_the_code(name):
    told = ROWS[name]["range"].replace("`", "")
    number, none = (told.removesuffix(", or None"), told.endswith(", or None"))
    whole = "int" in str(FIELDS[name].type)
    assert accepts(name, None) is none
    if number == "bool":
        assert [accepts(name, value) for value in (True, False, 1)] == [True, True, False]
    elif number == "exceptions":
        assert [accepts(name, value) for value in (ValueError, (ValueError,), int)] == [True, True, False]
    elif number == "integer":
        assert [accepts(name, value) for value in (-5, 0, 5, 0.5)] == [True, True, True, False]
    elif " or " in number:
        assert all(accepts(name, eval(value)) for value in number.split(" or "))
        assert not accepts(name, "something else")
    elif " to " in number:
        least, most = map(int, number.split(" to "))
        assert [accepts(name, value) for value in (least - 1, least, most, most + 1)] == [False, True, True, False]
    else:
        sign, bound = number.split()
        least, step = int(bound), 1 if whole else TINY
        assert [accepts(name, value) for value in (least - step, least, least + step)] == [False, sign == ">=", True]
        assert accepts(name, 0.5) is not whole or sign == ">="


@pytest.mark.parametrize("name", FIELDS)
def test_the_example_is_accepted_and_shows_another_value_than_the_default(name):
    example = bare(ROWS[name]["example"])
    given = eval(f"dict({example})", NAMES)
    assert next(iter(given)) == name
    assert given[name] != FIELDS[name].default
    Policy(**{"max_workers": 4, **given})


@pytest.mark.parametrize("name", FIELDS)
def test_a_row_has_a_known_unit_and_says_what_happens(name):
    row = ROWS[name]
    assert row["unit"] in UNITS
    assert (row["unit"] == "s") is ("float" in str(FIELDS[name].type))
    assert row["what happens"].endswith(".")
    assert len(row["what happens"]) > 30


def test_the_other_arguments_of_the_constructor_have_their_defaults_in_the_table():
    section = PAGE.partition("\n## Other arguments")[2]
    told = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", section, re.MULTILINE))
    parameters = inspect.signature(PidfdPoolExecutor).parameters
    others = {name: kind.default for name, kind in parameters.items() if name not in FIELDS}
    others = {name: default for name, default in others.items() if name != "options"}
    assert {name: eval(default) for name, default in told.items()} == others
