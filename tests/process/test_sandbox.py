"""The system calls that a pool needs are tried once for each process."""

from __future__ import annotations

import errno
import os

import pytest

from pidfdpool.process import sandbox
from tests.conditions import in_forked_child, open_descriptors


@pytest.fixture
def tried(monkeypatch):
    """Return the names of the calls that were tried, by a process that has tried none."""
    tried, calls = [], sandbox._calls

    def noted():
        for name, call in calls():
            tried.append(name)
            yield name, call

    monkeypatch.setattr(sandbox, "_calls", noted)
    monkeypatch.setattr(sandbox, "_checked_in", None)
    return tried


def test_each_is_tried_once_and_nothing_stays_open(tried):
    before = open_descriptors()
    sandbox.check()
    sandbox.check()
    assert len(tried) == len(set(tried)) > 10
    assert open_descriptors() == before


def test_a_forked_child_may_be_in_another_sandbox_and_tries_them_again(tried):
    sandbox.check()
    tried.clear()

    def child():
        sandbox.check()
        assert tried

    assert in_forked_child(child) == "ok"


def test_one_that_is_refused_is_named_and_tried_again_the_next_time(tried, monkeypatch):
    calls = [("first", lambda: None), ("second", refuse)]
    monkeypatch.setattr(sandbox, "_calls", lambda: calls)
    for _ in range(2):
        with pytest.raises(PermissionError, match="may not call second"):
            sandbox.check()


def test_a_lack_of_descriptors_is_no_refusal(tried, monkeypatch):
    monkeypatch.setattr(sandbox, "_calls", lambda: [("first", lambda: fail(errno.EMFILE))])
    with pytest.raises(OSError, match="Too many open files") as caught:
        sandbox.check()
    assert "may not call" not in str(caught.value)


def refuse():
    fail(errno.EPERM)


def fail(number):
    raise OSError(number, os.strerror(number))
