"""Which limits are marks, and what setting one leaves alone."""

from __future__ import annotations

import resource

import pytest

from pidfdpool.worker import mark
from tests.conditions import in_forked_child

LOCKS = 10


def test_a_mark_holds_its_templates_prefix_and_its_generation():
    assert mark.make(5, 3) == (0x2B1D << 48) | (5 << 24) | 3
    assert mark.make((1 << 24) - 1, (1 << 24) - 1) == (0x2B1D << 48) | ((1 << 48) - 1)
    assert mark.make(5, (1 << 24) + 3) == mark.make(5, 3)


def test_a_random_prefix_has_as_many_bits_as_there_are():
    found = {mark.random_prefix() for _ in range(200)}
    assert max(found) >= 1 << 20
    assert max(found) < 1 << 24
    assert len(found) > 190


@pytest.mark.parametrize(
    ("soft", "is_mark"),
    [(mark.make(5, 3), True), (0x2B1C << 48, False), (0x2B1E << 48, False), (100, False), (0x2B1D, False)],
)
def test_only_a_limit_with_the_sign_of_marks_is_one(monkeypatch, soft, is_mark):
    monkeypatch.setattr(mark.resource, "prlimit", lambda _pid, _limit: (soft, 7))
    assert mark.of(0) == (soft if is_mark else None)


def test_the_limit_that_is_read_and_written_is_one_that_limits_nothing(monkeypatch):
    calls = []

    def read(*which):
        calls.append(which)
        return 11, 22

    monkeypatch.setattr(mark.resource, "prlimit", read)
    monkeypatch.setattr(mark.resource, "getrlimit", read)
    monkeypatch.setattr(mark.resource, "setrlimit", lambda *told: calls.append(told))
    assert mark.of(123) is None
    own = mark.Mark(99)
    own.set()
    own.remove()
    assert calls == [(123, LOCKS), (LOCKS,), (LOCKS,), (LOCKS, (99, 22)), (LOCKS,), (LOCKS, (11, 22))]


def test_where_the_limit_could_not_be_read_it_is_not_restored(monkeypatch):
    def refuse(*_):
        raise OSError

    set_to = []
    monkeypatch.setattr(mark.resource, "getrlimit", refuse)
    own = mark.Mark(99)
    monkeypatch.setattr(mark.resource, "getrlimit", lambda _: (11, 22))
    monkeypatch.setattr(mark.resource, "setrlimit", lambda _, limits: set_to.append(limits))
    own.remove()
    assert set_to == []


def test_a_mark_above_the_hard_limit_is_none():
    def worker():
        resource.setrlimit(LOCKS, (10, 20))
        own = mark.Mark(mark.make(5, 3))
        own.set()
        assert resource.getrlimit(LOCKS) == (10, 20)
        own.remove()
        assert resource.getrlimit(LOCKS) == (10, 20)

    assert in_forked_child(worker) == "ok"
