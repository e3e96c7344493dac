"""How decisions about a worker are carried out: tasks sent ahead and taken back, looks at its progress."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace

import pytest

from pidfdpool.loop import dispatch
from pidfdpool.loop.chunk_calls import Chunk, Terms
from pidfdpool.loop.death_reports import DeathReports
from pidfdpool.loop.dispatch import AT_ONCE, SMALL, Dispatcher
from pidfdpool.loop.resolutions import Resolver
from pidfdpool.loop.task import Task
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.policy import Policy
from pidfdpool.serialization import payload
from pidfdpool.transport import framing
from pidfdpool.transport.published import Published
from tests.loop.test_parts import Recipient


class Link:
    """The host's end of a worker. `log` has what is done with it, in order."""

    name = 0, 1, 4711

    def __init__(self):
        self.log, self.takes, self.leased, self.times, self.refuses = [], 0, {}, {}, False
        self.progress = SimpleNamespace(
            put_tokens=lambda count: self.log.append(("tokens", count)), take_back=self._take_back
        )
        self.account = SimpleNamespace(leased=self.leased)
        for name in ("leave", "request_stack"):
            setattr(self, name, lambda name=name: self.log.append(name))
        self.signal = lambda number: self.log.append(("signal", number))
        self.memory = lambda: 5000
        self.last_heartbeat = lambda: self.times.get("heartbeat")
        self.call_started = lambda task, before: self.log.append((task, before)) or self.times.get("call")
        self.published = lambda: self.times.get("published")

    def _take_back(self, last):
        self.log.append(("back", list(last)))
        return self.takes

    def post(self, pieces):
        if self.refuses:
            raise BrokenPipeError
        data, numbers = b"".join(pieces), []
        while data:
            kind, count, _, attempt, number = framing.HEADER.unpack_from(data)
            assert (kind, count, attempt) == (framing.TASK, 1, 1)
            (length,) = framing.struct_of("<Q").unpack_from(data, framing.HEADER.size)
            data = data[framing.HEADER.size + 8 + length :]
            numbers.append(number)
        self.log.append(numbers)


class Leases:
    def __init__(self):
        self.log, self.sizes = [], {}

    def post(self, link, task, attempt, deadline):
        link.log.append(f"large {task.number}")

    def take_back(self, link, number):
        self.log.append(number)


@pytest.fixture
def link():
    return Link()


@pytest.fixture
def dispatcher(link):
    slot = SimpleNamespace(ahead=deque([2, 3, 4]))
    machine = SimpleNamespace(slots=[slot])
    made = Dispatcher(machine, Resolver(DeathReports([], 5)), None, Leases(), {0: link})
    made.tasks, made.leases = made._tasks, made._leases
    return made


def task(dispatcher, number, size=10, heavy=False, what="work"):
    buffers = payload.dumps(bytes(size))
    if heavy:
        buffers = type("Heavy", (list,), {"last_byte": 46})(buffers)
    made = dispatcher.tasks[number] = Task(number, Recipient(), buffers, what, Policy(1))
    made.future.attempts, made.future.began = [], 0
    made.future._note_attempt = lambda worker, attempt, at: made.future.attempts.append((worker, attempt))
    made.future._begin = lambda: setattr(made.future, "began", made.future.began + 1) or True
    return made


def act(dispatcher, action):
    return dispatcher.handlers[type(action)](action)


# ---- ahead -------------------------------------------------------------------------------------------------------


def test_small_tasks_are_sent_ahead_in_one_write_behind_their_tokens(dispatcher, link):
    for number in (2, 3, 4):
        task(dispatcher, number)
    assert act(dispatcher, do.Prefetch(0, 1, (2, 3, 4))) is None
    assert link.log == [("tokens", 3), [2, 3, 4]]


def test_many_tasks_are_sent_in_several_writes_and_all_arrive_in_their_order(dispatcher, link):
    numbers = tuple(range(1, 2 * AT_ONCE + 2))
    for number in numbers:
        task(dispatcher, number)
    act(dispatcher, do.Prefetch(0, 1, numbers))
    assert link.log[0] == ("tokens", len(numbers))
    assert [len(each) for each in link.log[1:]] == [AT_ONCE, AT_ONCE, 1]
    assert [number for each in link.log[1:] for number in each] == list(numbers)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_one_that_lies_in_a_segment_keeps_its_place_among_the_others(dispatcher, link, at):
    for index, number in enumerate((2, 3, 4)):
        task(dispatcher, number, heavy=index == at)
    act(dispatcher, do.Prefetch(0, 1, (2, 3, 4)))
    sent = []
    for each in link.log[1:]:
        sent += each if isinstance(each, list) else [int(each.split()[1])]
    assert sent == [2, 3, 4]
    assert f"large {(2, 3, 4)[at]}" in link.log


def test_larger_ones_are_gathered_and_not_copied(dispatcher, link):
    for number in (2, 3):
        task(dispatcher, number, SMALL)
    act(dispatcher, do.Prefetch(0, 1, (2, 3)))
    assert link.log == [("tokens", 2), [2, 3]]


def test_a_name_that_is_known_for_large_results_goes_the_way_of_segments(dispatcher, link):
    dispatcher.leases.sizes["work"] = 1, 1
    task(dispatcher, 2)
    task(dispatcher, 3, what="other")
    act(dispatcher, do.Prefetch(0, 1, (2, 3)))
    assert link.log == [("tokens", 2), "large 2", [3]]


def test_a_dying_worker_is_no_error_of_what_was_to_be_sent_ahead(dispatcher, link):
    link.refuses = True
    task(dispatcher, 2)
    assert act(dispatcher, do.Prefetch(0, 1, (2,))) is None
    assert link.log == [("tokens", 1)], "which tell that it has not begun"


@pytest.mark.parametrize(("asked", "takes", "settled"), [(2, 2, [3, 4]), (2, 1, [4]), (3, 0, []), (3, 3, [2, 3, 4])])
def test_the_last_ones_ahead_are_taken_back_as_far_as_they_have_not_begun(dispatcher, link, asked, takes, settled):
    link.takes = takes
    link.leased[9] = None
    assert act(dispatcher, do.TakeBack(0, 1, asked)) == ev.TakenBack(0, 1, takes)
    assert link.log == [("back", [2, 3, 4][-asked:])]
    assert dispatcher.leases.log == settled


def test_a_task_that_began_behind_another_is_noted_with_its_worker(dispatcher, link):
    begun = task(dispatcher, 2)
    assert act(dispatcher, do.MarkBegun(0, 1, 2)) is None
    assert (begun.begun, begun.attempt, begun.future.began) == (True, 1, 1)
    assert begun.future.attempts == [(link.name, 1)]


# ---- looks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heartbeat", "call", "chunk", "at"),
    [
        (7.0, 9.0, None, 7.0),
        (None, 9.0, None, None),
        (7.0, 9.0, 2, 7.0),
        (5.0, 9.0, 2, 9.0),
        (5.0, None, 2, 5.0),
        (None, 9.0, 2, 9.0),
        (None, None, 2, 0.0),
        (5.0, 3.0, 2, 5.0),
    ],
)
def test_of_a_chunk_each_call_that_begins_is_a_heartbeat_if_there_was_no_later_one(
    dispatcher, link, heartbeat, call, chunk, at
):
    link.times = {"heartbeat": heartbeat, "call": call}
    late = at is None or at <= 5.0
    assert act(dispatcher, do.CheckHeartbeat(0, 1, chunk=chunk, before=5.0)) == ev.LastHeartbeat(0, 1, at, late)
    assert link.log == ([(2, 5.0)] if chunk is not None and (heartbeat is None or heartbeat <= 5.0) else [])


@pytest.mark.parametrize(("at", "late"), [(None, True), (4.0, True), (5.0, True), (5.001, False), (9.0, False)])
def test_a_look_at_a_call_tells_what_was_found_and_whether_it_was_late(dispatcher, link, at, late):
    link.times = {"call": at}
    assert act(dispatcher, do.CheckCall(0, 1, 2, 5.0)) == ev.CallStarted(0, 1, at, late)
    assert link.log == [(2, 5.0)]


def test_a_look_at_memory_tells_what_was_found(dispatcher, link):
    assert act(dispatcher, do.CheckMemory(0, 1)) == ev.MemoryMeasured(0, 1, 5000)


def test_what_a_worker_has_published_counts_for_its_own_chunk_only(dispatcher, link):
    chunk = Chunk(print, "work", 0, range(4), starred=False, terms=Terms())
    task(dispatcher, 2, what=chunk)
    for published in (None, Published(3, 1, [1], b"x")):
        link.times["published"] = published
        act(dispatcher, do.ReadPublished(0, 1, 2))
        assert chunk.published is None
    link.times["published"] = own = Published(2, 1, [1], b"x")
    act(dispatcher, do.ReadPublished(0, 1, 2))
    assert chunk.published is own
    task(dispatcher, 2)
    act(dispatcher, do.ReadPublished(0, 1, 2))


def test_a_worker_is_told_to_leave_signalled_and_asked_for_its_stack(dispatcher, link):
    for action in (do.Stop(0, 1), do.Signal(0, 1, 9), do.DumpStack(0, 1)):
        assert act(dispatcher, action) is None
    assert link.log == ["leave", ("signal", 9), "request_stack"]


# ---- the template ------------------------------------------------------------------------------------------------


def test_a_worker_is_asked_for_with_its_tokens_first_and_watched_in_both_ways(dispatcher, monkeypatch):
    watched, requests = [], []
    dispatcher.template = SimpleNamespace(request=lambda pieces, fd: requests.append((pieces[0], fd)))
    dispatcher.on_channel = lambda link, mask: watched.append(("channel", link.slot, mask))
    dispatcher.on_answers = lambda link, mask: watched.append(("answers", link.slot, mask))

    class NewLink:
        def __init__(self, slot, generation, ours, pipe, our_tokens, poller):
            self.slot, self.cookie = slot, 77
            self.owned = ours, pipe, our_tokens

        def watch_channel(self, callback):
            callback(1)

        def watch_pipe(self, callback):
            callback(2)

    monkeypatch.setattr(dispatch, "WorkerLink", NewLink)
    assert act(dispatcher, do.Spawn(3, 9)) is None
    assert watched == [("channel", 3, 1), ("answers", 3, 2)]
    asked = [framing.HEADER.unpack_from(data) for data, _ in requests]
    assert [(kind, slot, generation) for kind, _, slot, generation, _ in asked] == [
        (framing.TOKENS, 3, 9), (framing.SPAWN, 3, 9)
    ]  # fmt: skip
    assert asked[1][-1] == 77
    link = dispatcher.workers[3]
    link.owned[0].close()
    for fd in (*link.owned[1:], *(fd for _, fd in requests)):
        dispatch.native.close(fd)


def test_a_template_that_is_to_stop_is_resumed_before_and_one_that_is_silent_is_killed_and_told_of(
    dispatcher, caplog
):
    log = []
    dispatcher.template = SimpleNamespace(
        resume=lambda: log.append("resume"),
        request=lambda pieces: log.append(framing.HEADER.unpack_from(pieces[0])[0]),
        kill=lambda: log.append("kill"),
        end=SimpleNamespace(pid=4711),
    )
    assert act(dispatcher, do.StopTemplate()) is None
    assert log == ["resume", framing.STOP]
    resolution = act(dispatcher, do.KillTemplate())
    assert log[-1] == "kill"
    assert caplog.text == ""
    resolution()
    assert "4711" in caplog.text
