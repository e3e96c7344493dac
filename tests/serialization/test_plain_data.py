"""Which objects are recognised as plain data, whose pickles are not searched."""

from __future__ import annotations

import json
import os
import pickle
import sys
import types
from collections import OrderedDict
from functools import partial

import pytest

from pidfdpool.serialization import importable, payload
from pidfdpool.serialization.plain_data import SEARCHED_BELOW, is_plain
from tests.conditions import run_python

LARGE = bytes(range(250)) * 260


class Text(str):
    """A subclass of str, which is pickled by name."""


def seen(value):
    return is_plain(value, len(pickle.dumps(value, 5)))


@pytest.mark.parametrize(
    "value",
    [
        LARGE,
        bytearray(LARGE),
        "text" * 5000,
        [LARGE] * 5,
        (LARGE, 1, None, 2.5, True),
        {"document": LARGE},
        [{"document": LARGE}, {"document": LARGE[1:]}],
        (json.dumps, (LARGE,), {}),
        (json.dumps, ("text" * 5000,), {"indent": 2}),
        [[[[LARGE]]]],
        (json.dumps, (b"a pickle", [pickle.PickleBuffer(LARGE)], False), {}),
        pickle.PickleBuffer(bytearray(LARGE)),
    ],
)
def test_plain_data_is_recognised(value):
    assert seen(value)


@pytest.mark.parametrize(
    "value",
    [
        Text("text" * 5000),
        [LARGE, Text("x")],
        (LARGE, {"key": Text("x")}),
        {Text("key"): LARGE},
        OrderedDict(document=LARGE),
        (LARGE, {1, 2}),
        (LARGE, os.path.join, partial(int, base=2)),
        (LARGE, ValueError),
        (LARGE, len),
        (LARGE, ["x"] * 1000),  # too many parts to be looked at one by one
        [0] * 100_000,
    ],
)
def test_other_data_is_not_plain(value):
    assert not seen(value)


def test_functions_of_main_and_of_unimportable_modules_are_not_plain(monkeypatch):
    lost = types.ModuleType("made_up_by_a_test")
    exec("def found(): pass\ndef here(): pass", vars(lost))
    monkeypatch.setitem(sys.modules, "made_up_by_a_test", lost)
    assert lost in importable.unimportable_modules()
    for module in ("__main__", "__mp_main__", "made_up_by_a_test", None):
        lost.here.__module__ = module
        assert not seen_call(lost.here)
    lost.here.__module__ = "json"
    assert seen_call(lost.here)


def seen_call(function):
    return is_plain((function, (LARGE,), {}), len(LARGE))


def test_deep_nesting_is_no_error():
    value = LARGE
    for _ in range(sys.getrecursionlimit() // 8):
        value = [value]
    assert not seen(value)
    assert payload.loads(payload.dumps(value)) == value
    around = [LARGE]
    around.append(around)
    assert not seen(around)


@pytest.mark.parametrize("size", [10, SEARCHED_BELOW, 5 * SEARCHED_BELOW, 20 * SEARCHED_BELOW])
def test_functions_of_main_travel_by_value_beside_large_data(size):
    code = f"""
def first(data):
    return data[:1], helper
def helper():
    return "of main"
from pidfdpool import PidfdPoolExecutor
with PidfdPoolExecutor(1) as pool:
    for data in (b"x" * {size}, [b"x" * {size}], "\\x93" * {size}):
        for _ in range(3):
            start, found = pool.submit(first, data).result()
            assert start == data[:1] and found() == "of main"
            (start, found), = pool.map(first, [data])
            assert start == data[:1] and found() == "of main"
print("done")
"""
    run = run_python(code)
    assert run.stdout == "done\n", run.stderr
