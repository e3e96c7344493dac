"""What passes between host and worker while a task streams: who gets the items, and who is told what is wanted."""

from __future__ import annotations

import threading
from collections import deque
from types import SimpleNamespace

import pytest

from pidfdpool.loop import streams
from pidfdpool.scheduler.states import State
from pidfdpool.transport import framing


class Outbox:
    def __init__(self):
        self.left = []

    def leave(self, resolutions):
        self.left.extend(resolutions)


@pytest.fixture
def core():
    lock = threading.RLock()
    return SimpleNamespace(
        lock=lock, tasks={}, workers={}, outbox=Outbox(), is_reentered=False, defers=False,
        machine=SimpleNamespace(slots=[slot(0), slot(1)]),
    )  # fmt: skip


def slot(index, state=State.BUSY, task=None, ahead=()):
    return SimpleNamespace(index=index, state=state, task=task, ahead=deque(ahead))


class Stream:
    """The recipient of a stream's items."""

    def __init__(self, core):
        self.core, self.got = core, []

    def take_payload(self, buffers, *, together):
        assert not self.core.lock._is_owned(), "it wakes readers"
        self.got.append((buffers, together))


class Link:
    def __init__(self, core, index, *, gone=False):
        self.core, self.slot, self.sent, self.gone = core, index, [], gone
        core.workers[index] = self

    def post(self, pieces):
        assert self.core.lock._is_owned()
        if self.gone:
            raise BrokenPipeError
        kind, _, how, taken, task = framing.HEADER.unpack_from(pieces[0])
        assert kind == framing.STREAM
        self.sent.append((how, taken, task))


def streaming(core, index=1, task=5):
    """Have a worker run a stream; return its link, and the recipient."""
    recipient = Stream(core)
    core.tasks[task] = SimpleNamespace(future=recipient)
    core.machine.slots[index].task = task
    return Link(core, index), recipient


def items(task, slot=0, *buffers):
    return framing.Frame(framing.ITEMS, slot, 0, task, list(buffers))


# ---- items -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [0, 1])
@pytest.mark.parametrize("state", [State.BUSY, State.IDLE, State.STOPPING])
def test_items_of_a_stream_go_to_its_recipient_also_the_last_ones_of_a_worker_that_is_killed(core, together, state):
    link, recipient = streaming(core)
    core.machine.slots[1].state = state
    assert streams.take_items(core, link, items(5, together, b"a", b"b")) is None
    assert recipient.got == [([b"a", b"b"], bool(together))]
    assert core.outbox.left == []


def test_items_do_not_overtake_what_was_left_to_the_pool_thread(core):
    link, recipient = streaming(core)
    core.outbox.left.append(lambda: recipient.got.append("before"))
    streams.take_items(core, link, items(5, 1, b"a"))
    streams.take_items(core, link, items(5, 0, b"b"))
    assert recipient.got == []
    for resolution in core.outbox.left:
        resolution()
    assert recipient.got == ["before", ([b"a"], True), ([b"b"], False)]


def test_whose_stream_it_is_is_looked_up_under_the_lock(core):
    held = []

    class Tasks(dict):
        def get(self, number):
            held.append(core.lock._is_owned())
            return super().get(number)

    core.tasks = Tasks()
    link, recipient = streaming(core)
    streams.take_items(core, link, items(5, 0, b"a"))
    assert held == [True]
    assert len(recipient.got) == 1


def wrong(core, why):
    link, _ = streaming(core)
    if why == "another worker's":
        return Link(core, 0)
    if why == "no stream":
        core.tasks[5].future = SimpleNamespace()
    elif why == "over":
        core.tasks.clear()
    else:
        core.machine.slots[1].task = 6
    return link


@pytest.mark.parametrize("why", ["another worker's", "no stream", "over", "not at that"])
@pytest.mark.parametrize("state", [State.BUSY, State.IDLE])
def test_items_of_what_is_no_stream_of_the_workers_are_nothing_that_its_loop_writes(core, why, state):
    link = wrong(core, why)
    core.machine.slots[link.slot].state = state
    fault = streams.take_items(core, link, items(5, 0, b"a"))
    assert type(fault) is framing.ProtocolError
    assert str(fault) == "items of task 5, which is no stream of its own"


@pytest.mark.parametrize("state", [State.STARTING, State.STOPPING, State.DEAD])
def test_a_worker_that_is_being_killed_may_go_on_for_a_moment(core, state):
    link = wrong(core, "over")
    core.machine.slots[link.slot].state = state
    assert streams.take_items(core, link, items(5, 0, b"a")) is None
    assert core.outbox.left == []


# ---- orders ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [framing.STREAM_ROOM, framing.STREAM_END])
def test_the_worker_that_runs_a_stream_is_told_what_its_reader_wants(core, kind):
    other = Link(core, 0)
    link, _ = streaming(core)
    streams.order(core, 5, kind, 7)
    assert (other.sent, link.sent) == ([], [(kind, 7, 5)])


def test_if_nothing_was_taken_nothing_was(core):
    link, _ = streaming(core)
    streams.order(core, 5, framing.STREAM_END)
    assert link.sent == [(framing.STREAM_END, 0, 5)]


def test_a_worker_that_has_a_stream_ahead_is_told_too(core):
    """It may have begun it, and the host has not read yet that the task before it is done."""
    link, _ = streaming(core)
    core.machine.slots[1].task, core.machine.slots[1].ahead = 4, deque([3, 5])
    streams.order(core, 5, framing.STREAM_ROOM, 1)
    assert link.sent == [(framing.STREAM_ROOM, 1, 5)]


def test_the_count_of_items_begins_anew_where_the_frame_has_no_room_for_it(core):
    link, _ = streaming(core)
    for taken in (2**32 - 1, 2**32, 2**32 + 7):
        streams.order(core, 5, framing.STREAM_ROOM, taken)
    assert [taken for _, taken, _ in link.sent] == [2**32 - 1, 0, 7]


@pytest.mark.parametrize("why", ["nobody runs it", "it is over", "its worker is gone", "its worker is dying"])
def test_where_nobody_can_be_told_nothing_happens(core, why):
    link, _ = streaming(core)
    if why == "nobody runs it":
        core.machine.slots[1].task = None
    elif why == "it is over":
        core.tasks.clear()
    elif why == "its worker is gone":
        core.workers.clear()
    else:
        link.gone = True
    streams.order(core, 5, framing.STREAM_END)
    assert link.sent == []


@pytest.mark.parametrize("why", ["is_reentered", "defers"])
def test_a_signal_handler_leaves_its_order_to_the_pool_thread(core, why):
    link, _ = streaming(core)
    setattr(core, why, True)
    streams.order(core, 5, framing.STREAM_ROOM, 7)
    assert link.sent == []
    [left] = core.outbox.left
    left()
    assert link.sent == [(framing.STREAM_ROOM, 7, 5)]
