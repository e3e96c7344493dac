"""Nodes that are signalled while they are being born: before they have handlers and their target."""

from __future__ import annotations

import signal
import time

import pytest

from pidfdpool.pidfd import Pidfd
from pidfdpool.swarm import EventKind, Reason, Swarm
from tests.conditions import eventually
from tests.swarm import births


@pytest.mark.many_times
@pytest.mark.parametrize("way", ["spawn", "fork"])
def test_what_is_sent_to_a_node_that_is_being_born_does_not_end_it(way):
    """Messages and requests for stacks come at every moment of dozens of births."""
    deaths = []

    def note(event):
        if event.death is not None:
            deaths.append(event.death)

    options = {"restart": "always", "restart_pause": 0.0, "intensity": None, "preload": births.__name__}
    with Swarm(births.leave, 3, mp_context=way, on_event=note, **options) as swarm:
        while len(deaths) < 60:
            swarm.signal(signal.SIGRTMIN, 1)
            swarm.stacks(0.0)
            time.sleep(0.002)  # the kernel keeps so many of them, and no more
    assert {str(death.exit_status) for death in deaths if death.reason is Reason.UNASKED} == {"exited with code 0"}


def test_a_node_that_is_terminated_while_its_target_is_loaded_is_started_again(tmp_path):
    path = tmp_path / "loading"
    events = []
    with Swarm(
        births.live, args=(births.SlowToLoad(str(path)),), restart_pause=0.01, on_event=events.append
    ) as swarm:
        pid = int(eventually(lambda: path.exists() and path.read_text(), "it is being loaded"))
        with Pidfd.open(pid) as node:
            while node.alive():  # the first one asks, the next one insists
                node.send_signal(signal.SIGTERM)
                time.sleep(0.01)
        assert swarm.wait_until_healthy(timeout=30)
    (death, *_) = [event.death for event in events if event.kind is EventKind.DIED]
    assert (death.reason, death.exit_status.code) == (Reason.UNASKED, 128 + signal.SIGTERM)
    assert EventKind.GAVE_UP not in {event.kind for event in events}
