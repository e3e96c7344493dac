"""Which cases of a test the usual run leaves out, where it has more of them than show anything new.

What is left out is decided by names, so it is the same in each process and in each run.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

import pytest

WAYS = ("spawn", "fork")
FEW = 6  # so many combinations of a test's parameters are all run


def left_out(items: Iterable[pytest.Item], *, ways: str, cases: str) -> set[pytest.Item]:
    """Return what is not to run. ways, cases: the values of these options."""
    out: set[pytest.Item] = set()
    if ways == "one":
        out |= {item for item in items if is_other_way(item)}
    if cases == "some":
        out |= further_combinations(item for item in items if item not in out)
        out |= two_thirds_of_costly_tables(item for item in items if item not in out)
        out |= {item for item in items if item.get_closest_marker("many_times")}
    return out


def is_other_way(item: pytest.Item) -> bool:
    """Return whether a test is to be left out, because it runs in the other way.

    What comes after the start mostly does not depend on the way. So of many tests, half in each way show as much as
    all in both. The tests of the template itself run in both.
    """
    way = _parameters(item).get("way")
    if way not in WAYS or "tests/template/" in item.nodeid:
        return False
    name = re.sub(rf"(?<=[\[-]){way}(?=[\]-])", "", item.nodeid, count=1)
    return way != WAYS[_place(name) % len(WAYS)]


def further_combinations(items: Iterable[pytest.Item]) -> set[pytest.Item]:
    """Return the cases of tests with many in which every value of a parameter has been in another case.

    Which case comes first is decided by its name. So each value is in one case at least, and most pairs of values are
    in some test. Of a table with several parameters in a row, rows of values that others have are left out, too.
    """
    further: set[pytest.Item] = set()
    for cases in _by_test(item for item in items if len(_parameters(item)) > 1):
        if len(cases) <= FEW:
            continue
        seen: set[tuple[str, int]] = set()
        for item in sorted(cases, key=lambda item: _place(item.nodeid)):
            values = {(name, id(value)) for name, value in _parameters(item).items()}
            if values <= seen:
                further.add(item)
            seen |= values
    return further


def two_thirds_of_costly_tables(items: Iterable[pytest.Item]) -> set[pytest.Item]:
    """Return two thirds of the cases of each test with the mark `costly_table`.

    Each case of such a test starts programs, and there are many, so all of them take minutes.
    """
    left_out: set[pytest.Item] = set()
    for cases in _by_test(item for item in items if item.get_closest_marker("costly_table")):
        by_name = sorted(cases, key=lambda item: _place(item.nodeid))
        left_out.update(by_name[-(-len(cases) // 3) :])
    return left_out


def _place(name: str) -> int:
    return zlib.crc32(name.encode())


def _parameters(item: pytest.Item) -> dict[str, object]:
    return item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}


def _by_test(items: Iterable[pytest.Item]) -> Iterable[list[pytest.Item]]:
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    return cases.values()
