"""Every test of CPython's suite for process pools is a test here: it passes, or `expected` says why it differs."""

from __future__ import annotations

import pytest

from tests.stdlib_suite.expected import DIFFERS, MAY_PASS, difference, start_method
from tests.stdlib_suite.groups import SECONDS, list_all, run_all
from tests.stdlib_suite.locate import VARIABLE, find_suite, minor_version

SUITE = find_suite()
TESTS = [] if SUITE is None else list_all(SUITE)
LISTED = [name for name, differs in DIFFERS.items() if SUITE is not None and differs.since <= minor_version(SUITE)]

pytestmark = [
    pytest.mark.timeout(15 * SECONDS),  # the first test runs the whole suite
    pytest.mark.skipif(
        SUITE is None, reason=f"no installation of Python here has test_concurrent_futures; name one with {VARIABLE}"
    ),
]


@pytest.mark.parametrize(("module", "group", "test"), TESTS, ids=lambda value: str(value))
def test_standard(module, group, test):
    outcomes = run_all(SUITE, "ours")[module, group]
    outcome = outcomes.get(test, outcomes.get(""))
    assert outcome is not None, "it was never begun"
    differs = difference(group, test)
    if differs is not None and not (test in MAY_PASS and outcome.word == "passed"):
        assert outcome.word == "failed", f"it is expected to differ, but {outcome.word}: {differs.reason}"
        seen = any(text in outcome.detail for text in differs.seen)
        assert seen, f"it is expected to differ in another way ({differs.reason}): {outcome.detail}"
        return
    if outcome.word == "skipped":
        pytest.skip(outcome.detail)
    assert outcome.word == "passed", outcome.detail


@pytest.mark.parametrize("name", LISTED)
def test_each_listed_difference_is_about_a_test_that_exists(name):
    of, _, bare = name.rpartition(".")
    methods = {start_method(group) for _, group, test in TESTS if bare == test and group.endswith(of)}
    assert methods >= set(DIFFERS[name].methods)


def test_each_class_ends_its_process_in_good_order():
    assert {group: of[""].detail for group, of in run_all(SUITE, "ours").items() if "" in of} == {}


def test_no_start_method_is_missing():
    assert {start_method(group) for _, group, _ in TESTS} == {"fork", "forkserver", "spawn"}
