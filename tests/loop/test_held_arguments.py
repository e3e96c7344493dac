"""Which objects of a call are kept until its future is done."""

from __future__ import annotations

import weakref

import pytest

from pidfdpool.loop import held_arguments
from pidfdpool.serialization import picklers


class Plain:
    pass


class Finalized:
    def __del__(self):
        pass


class Large(list):
    """A payload that is large: it lies in a segment, or is gathered."""


def test_of_a_call_of_plain_data_nothing_is_kept():
    assert held_arguments.held((len, (1, "text", None), {}), [b"payload"]) is None


@pytest.mark.parametrize("call", [(len, (Plain(),), {}), (len, (1,), {"key": 2}), (Plain(), (), {})])
def test_another_small_call_is_kept_as_it_is(call):
    assert held_arguments.held(call, [b"payload"]) is call


@pytest.mark.parametrize("by_name", [False, True])
def test_of_a_large_call_those_are_kept_whose_end_somebody_notices(by_name):
    plain, finalized, watched = Plain(), Finalized(), Plain()
    reference = weakref.ref(watched)
    arguments = (plain, finalized, watched, b"x" * 100)
    keywords = {f"name{index}": value for index, value in enumerate(arguments)}
    kept = held_arguments.held((len, () if by_name else arguments, keywords if by_name else {}), Large())
    assert kept == [finalized, watched]
    assert reference() is watched


def test_what_a_call_shares_is_closed_when_it_is_given_up(monkeypatch):
    closed = []
    monkeypatch.setattr(picklers, "shared_resources", {1: ["ours"]})
    monkeypatch.setattr(picklers, "pop_shared_resources", lambda: ["ours"])
    monkeypatch.setattr(picklers, "close_unfetched", closed.append)
    call = (len, (Plain(),), {})
    kept = held_arguments.held(call, [b"payload"])
    assert kept._call is call
    assert closed == []
    del kept
    assert closed == [["ours"]]
    held_arguments.let_go()
    assert closed == [["ours"], ["ours"]]
