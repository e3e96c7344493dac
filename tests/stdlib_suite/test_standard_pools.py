"""Every test of CPython's for `multiprocessing.Pool` passes with ours in its place, or is listed here, with why."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stdlib_suite import pools
from tests.stdlib_suite.groups import SECONDS, list_all, run_all

NOWHERE = Path("/")  # no suite is borrowed from another interpreter: only the interpreter's own is run

DIFFERS = {
    "test_unpickleable_result": (
        "expects that a lambda cannot be returned; here it can, and what really cannot be is a MaybeEncodingError",
        "MaybeEncodingError not raised",
    ),
}

INSTALLED = pools.are_installed()
TESTS = list_all(NOWHERE, pools.MODULES) if INSTALLED else []

pytestmark = [
    pytest.mark.timeout(15 * SECONDS),  # the first test runs all
    pytest.mark.skipif(not INSTALLED, reason="this interpreter comes without test._test_multiprocessing"),
]


@pytest.mark.parametrize(("module", "group", "test"), TESTS, ids=lambda value: str(value))
def test_standard_pool(module, group, test):
    outcomes = run_all(NOWHERE, "ours", pools.MODULES)[module, group]
    outcome = outcomes.get(test, outcomes.get(""))
    assert outcome is not None, "it was never begun"
    if test in DIFFERS:
        reason, seen = DIFFERS[test]
        assert outcome.word == "failed", f"it is expected to differ, but {outcome.word}: {reason}"
        assert seen in outcome.detail, f"it is expected to differ in another way ({reason}): {outcome.detail}"
        return
    if outcome.word == "skipped":
        pytest.skip(outcome.detail)
    assert outcome.word == "passed", outcome.detail


@pytest.mark.parametrize("name", DIFFERS if INSTALLED else [])
def test_each_listed_difference_is_about_a_test_that_exists(name):
    assert name in {test for _, _, test in TESTS}


def test_each_class_ends_its_process_in_good_order():
    outcomes = run_all(NOWHERE, "ours", pools.MODULES)
    assert {group: of[""].detail for group, of in outcomes.items() if "" in of} == {}


def test_no_class_and_no_start_method_is_missing():
    kinds = {"WithProcessesTestPool", "WithProcessesTestPoolWorkerErrors", "WithProcessesTestPoolWorkerLifetime"}
    assert {(module, group) for module, group, _ in TESTS} == {(m, kind) for m in pools.MODULES for kind in kinds}
