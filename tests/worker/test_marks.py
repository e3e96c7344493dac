"""The mark of a worker: there while tasks run whose descendants are to end with it, and gone during others."""

from __future__ import annotations

import os
import resource

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.worker import mark
from tests import calls
from tests.conditions import in_forked_child


def mark_of_this_process():
    return mark.of(0)


@pytest.mark.parametrize("end", [calls.raise_it, None], ids=["a failure", "a result"])
def test_the_mark_is_gone_during_a_task_that_spares_its_descendants_and_there_again_after_it(end):
    with PidfdPoolExecutor(1) as pool:
        of_worker = pool.submit(mark_of_this_process).result(20)
        assert of_worker is not None
        sparing = pool.options(kill_descendants=False)
        assert sparing.submit(mark_of_this_process).result(20) is None
        if end is not None:
            assert isinstance(sparing.submit(end, LookupError()).exception(20), LookupError)
        assert pool.submit(mark_of_this_process).result(20) == of_worker


def test_a_mark_is_told_from_an_ordinary_limit_and_from_those_of_other_templates():
    prefix = mark.random_prefix()
    assert 0 <= prefix < 1 << 24
    marks = [mark.make(prefix, generation) for generation in (1, 2, (1 << 24) - 1)]
    marks.append(mark.make(prefix ^ 1, 1))
    assert len(set(marks)) == 4
    assert all(0 < each < 1 << 62 for each in marks)
    assert mark.make(prefix, 1 << 24) == mark.make(prefix, 0), "generations are counted on from there"


def test_a_mark_is_inherited_and_the_one_below_it_is_there_again_when_it_is_removed():
    def outer():
        first = mark.make(1, 1)
        limits = resource.getrlimit(10)
        assert mark.of(0) is None
        own = mark.Mark(first)
        assert mark.of(0) is None, "it is not set yet"
        own.set()
        assert mark.of(0) == first
        assert resource.getrlimit(10)[1] == limits[1]
        assert in_forked_child(inner) == "ok"
        own.remove()
        assert resource.getrlimit(10) == limits

    def inner():
        assert mark.of(os.getppid()) == mark.of(0) == mark.make(1, 1)
        nested = mark.Mark(mark.make(2, 1))
        nested.set()
        assert mark.of(0) == mark.make(2, 1)
        nested.remove()
        assert mark.of(0) == mark.make(1, 1), "that of the worker in which the pool runs"

    assert in_forked_child(outer) == "ok"


def test_where_limits_are_refused_there_are_no_marks(monkeypatch):
    def refuse(*_):
        raise PermissionError

    for name in ("getrlimit", "setrlimit", "prlimit"):
        monkeypatch.setattr(mark.resource, name, refuse)
    own = mark.Mark(mark.make(1, 1))
    own.set()
    own.remove()
    assert mark.of(0) is None
