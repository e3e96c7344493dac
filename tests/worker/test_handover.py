"""What a worker waits for before it leaves: all that its results share with the host."""

from __future__ import annotations

import socket

import pytest

from pidfdpool.worker import handover


@pytest.fixture
def fetched(monkeypatch):
    """Return the set of what was fetched, of the resources that are added by their names."""
    fetched, shared = set(), []

    def are_fetched(resources):
        return fetched >= set(resources)

    monkeypatch.setattr(handover.picklers, "are_fetched", are_fetched)
    monkeypatch.setattr(handover.picklers, "shared_resources", shared)
    monkeypatch.setattr(handover.picklers, "pop_shared_resources", lambda: [shared.pop() for _ in list(shared)])
    return fetched


def test_what_earlier_results_share_is_waited_for_until_it_is_fetched(fetched):
    pending = handover.Handover()
    for name in "ab":
        handover.picklers.shared_resources.append(name)
        pending.add_shared()
    assert sorted(pending._pending) == ["a", "b"]
    fetched.add("a")
    handover.picklers.shared_resources.append("c")
    pending.add_shared()
    assert sorted(pending._pending) == ["b", "c"]


def test_nothing_is_waited_for_when_the_host_is_gone(fetched):
    ours, theirs = socket.socketpair()
    pending = handover.Handover()
    handover.picklers.shared_resources.append("a")
    pending.add_shared()
    with ours:
        theirs.close()
        pending.wait_until_fetched(ours.fileno())
    assert pending._pending == ["a"], "it was never fetched"
