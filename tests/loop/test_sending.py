"""What is written to workers, in which order, and what becomes of a task or a worker that cannot be had."""

from __future__ import annotations

import os
import time
import warnings
from collections import deque
from types import SimpleNamespace

import pytest

from pidfdpool.loop import answers, dispatch
from pidfdpool.loop.death_reports import DeathReports
from pidfdpool.loop.dispatch import SMALL, Dispatcher
from pidfdpool.loop.poller import Poller
from pidfdpool.loop.resolutions import Resolver
from pidfdpool.loop.task import Task
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.policy import Policy
from pidfdpool.serialization import payload
from pidfdpool.transport import framing
from tests.conditions import open_descriptors
from tests.loop.test_parts import Recipient


class Future(Recipient):
    def __init__(self, **options):
        super().__init__(**options)
        self.began, self.attempts = 0, []

    def _begin(self):
        self.began += 1
        return self.wanted

    def _note_attempt(self, worker, attempt, at):
        self.attempts.append((worker, attempt, at))


class Link:
    """The host's end of a worker. `log` has what is done with it, in order; what is posted, as its pieces."""

    name = 0, 7, 4711

    def __init__(self, error=None):
        self.log, self.error, self.takes = [], error, 0
        self.account = SimpleNamespace(leased={})
        self.progress = SimpleNamespace(
            forget_begun=lambda: self.log.append("forget"),
            put_tokens=lambda count: self.log.append(("tokens", count)),
            take_back=lambda last: self.takes,
        )

    def allow_calls(self, most):
        self.log.append(("allowed", most))

    def post(self, pieces):
        self.log.append(list(pieces))
        if self.error is not None:
            raise self.error


class Leases:
    def __init__(self):
        self.sizes, self.log = {}, []

    def post(self, link, task, attempt, deadline):
        link.log.append(("lease", task.number, attempt, deadline))

    def take_back(self, link, number):
        self.log.append((link, number))


class Large(list):
    last_byte = 46


@pytest.fixture
def link():
    return Link()


@pytest.fixture
def dispatcher(link):
    machine = SimpleNamespace(slots=[SimpleNamespace(ahead=deque([2, 3]))])
    made = Dispatcher(machine, Resolver(DeathReports([], 5)), None, Leases(), {0: link})
    made.tasks, made.leases, made.resolver = made._tasks, made._leases, made._resolver
    return made


def task(dispatcher, number=1, buffers=None, what="work", policy=None, **options):
    made = Task(number, Future(**options), buffers or payload.dumps(None), what, policy or Policy(1))
    dispatcher.tasks[number] = made
    return made


def act(dispatcher, action):
    return dispatcher.handlers[type(action)](action)


# ---- one task ----------------------------------------------------------------------------------------------------


def test_a_task_is_begun_noted_and_sent_with_its_deadline(dispatcher, link):
    sent, before = task(dispatcher), time.time()
    assert act(dispatcher, do.Send(0, 7, 1, 1, 2.5)) is None
    assert link.log == [("tokens", 1), sent.frame(1, 2.5)]
    assert (sent.begun, sent.attempt, sent.worker, sent.future.began) == (True, 1, link.name, 1)
    [(worker, attempt, at)] = sent.future.attempts
    assert (worker, attempt) == (link.name, 1)
    assert before <= at <= time.time()


def test_another_attempt_begins_no_future_again_and_the_worker_forgets_what_it_has_begun(dispatcher, link):
    sent = task(dispatcher, wanted=False)
    sent.begun = True
    assert act(dispatcher, do.Send(0, 7, 1, 3, None, 5)) is None
    assert link.log == ["forget", ("allowed", 5), ("tokens", 1), sent.frame(3, None)]
    assert (sent.attempt, sent.future.began) == (3, 0)
    assert sent.future.attempts[0][:2] == (link.name, 3)


@pytest.mark.parametrize("observed", [False, True])
def test_of_a_task_that_nobody_wants_nothing_is_sent_and_it_counts_as_cancelled(dispatcher, link, observed):
    skipped, seen = task(dispatcher, wanted=False), []
    if observed:
        note = lambda *given, **named: seen.append((given, named))  # noqa: E731
        dispatcher.resolver.observation = SimpleNamespace(note_end=note)
    assert act(dispatcher, do.Send(0, 7, 1)) == ev.SendSkipped(0, 7, 1)
    assert (link.log, dispatcher.tasks, dispatcher.resolver.cancelled) == ([], {}, 1)
    assert seen == [((skipped, None), {"cancelled": True})] * observed
    assert not skipped.begun


def test_a_worker_that_is_gone_is_told_of_with_its_task_which_stays(dispatcher, link):
    refused = task(dispatcher)
    link.error = ConnectionResetError()
    assert act(dispatcher, do.Send(0, 7, 1)) == ev.SendRefused(0, 7, 1)
    assert dispatcher.tasks == {1: refused}


@pytest.mark.parametrize("ahead", [False, True])
def test_a_worker_knows_the_levels_of_loggers_before_the_task_that_logs(dispatcher, link, ahead):
    sent = task(dispatcher)
    dispatcher.logs = SimpleNamespace(update=lambda to: link.log.append(("levels", to is link)))
    act(dispatcher, do.Prefetch(0, 7, (1,)) if ahead else do.Send(0, 7, 1))
    assert link.log[:2] == [("tokens", 1), ("levels", True)]
    assert b"".join(link.log[2]) == b"".join(sent.frame(1, None))


@pytest.mark.parametrize(
    ("buffers", "what", "leased"),
    [
        (Large([b"call"]), "work", True),
        (None, "large", True),
        (None, "work", False),
        ([b"call", b"buffer"], "work", False),
    ],
    ids=["in a segment", "known result", "plain", "two buffers"],
)
def test_what_has_to_do_with_segments_is_for_their_keeper_to_send(dispatcher, link, buffers, what, leased):
    dispatcher.leases.sizes["large"] = 1, 1
    sent = task(dispatcher, buffers=buffers, what=what)
    act(dispatcher, do.Send(0, 7, 1, 2, 2.5))
    assert link.log[-1] == (("lease", 1, 2, 2.5) if leased else sent.frame(2, 2.5))


# ---- tasks ahead -------------------------------------------------------------------------------------------------


def joined(link):
    """Return what was posted, and how many pieces each write had."""
    posts = [each for each in link.log if isinstance(each, list)]
    return b"".join(b"".join(pieces) for pieces in posts), [len(pieces) for pieces in posts]


def frames(*tasks):
    return b"".join(b"".join(each.frame(1, None)) for each in tasks)


def test_tasks_ahead_are_sent_with_what_each_of_them_needs(dispatcher, link):
    plain, spares = task(dispatcher, 2), task(dispatcher, 3, policy=Policy(1, kill_descendants=False))
    act(dispatcher, do.Prefetch(0, 7, (2, 3)))
    assert joined(link) == (frames(plain, spares), [1])
    assert not plain.begun, "it may be taken back"
    assert plain.future.attempts == []


@pytest.mark.parametrize(("over", "pieces"), [(0, 1), (1, 4)])
def test_so_many_bytes_are_copied_into_one_write_and_more_are_gathered(dispatcher, link, over, pieces):
    head = framing.OF_ONE.size
    first = task(dispatcher, 2, [b"x" * (SMALL - 2 * head - 100 + over)])
    second = task(dispatcher, 3, [b"y" * 100])
    act(dispatcher, do.Prefetch(0, 7, (2, 3)))
    assert joined(link) == (frames(first, second), [pieces])


@pytest.mark.parametrize(("over", "pieces"), [(0, 1), (1, 3)])
def test_the_same_holds_where_a_call_has_more_than_one_buffer(dispatcher, link, over, pieces):
    head = framing.HEADER.size + 2 * 8
    sent = task(dispatcher, 2, [b"x" * (SMALL - head - 10 + over), b"y" * 10])
    act(dispatcher, do.Prefetch(0, 7, (2,)))
    assert joined(link) == (frames(sent), [pieces])


def test_small_ones_around_one_in_a_segment_are_written_together(dispatcher, link):
    tasks = {number: task(dispatcher, number, Large([b"call"]) if number == 4 else None) for number in range(2, 7)}
    act(dispatcher, do.Prefetch(0, 7, tuple(tasks)))
    first, lease, second = link.log[1:]
    assert lease == ("lease", 4, 1, None)
    assert (b"".join(first), b"".join(second)) == (frames(tasks[2], tasks[3]), frames(tasks[5], tasks[6]))
    assert (len(first), len(second)) == (1, 1)


def test_what_is_not_the_worker_being_gone_is_not_hidden(dispatcher, link):
    task(dispatcher, 2)
    link.error = TimeoutError("by a signal handler")
    with pytest.raises(TimeoutError):
        act(dispatcher, do.Prefetch(0, 7, (2,)))


@pytest.mark.parametrize(("leased", "takes"), [(False, 2), (True, 0), (True, 1)])
def test_segments_are_given_back_only_of_what_was_taken_back(dispatcher, link, leased, takes):
    link.takes = takes
    if leased:
        link.account.leased[9] = None
    assert act(dispatcher, do.TakeBack(0, 7, 2)) == ev.TakenBack(0, 7, takes)
    assert dispatcher.leases.log == [(link, 3)] * (leased and takes)


def test_the_worker_of_a_task_that_began_behind_another_is_known_from_then_on(dispatcher, link):
    begun, before = task(dispatcher, 2), time.time()
    act(dispatcher, do.MarkBegun(0, 7, 2))
    assert (begun.worker, begun.attempt, begun.begun) == (link.name, 1, True)
    assert before <= begun.future.attempts[0][2] <= time.time()


# ---- workers -----------------------------------------------------------------------------------------------------


@pytest.fixture
def starting(dispatcher):
    """Give a dispatcher that asks a template of the test's for workers, and closes what it was given."""
    poller, requests = Poller(), []
    dispatcher._poller, dispatcher.requests = poller, requests
    dispatcher.template = SimpleNamespace(request=lambda pieces, fd: requests.append((pieces, fd)))
    dispatcher.on_channel = dispatcher.on_answers = lambda link, mask: None
    dispatcher.workers.clear()
    yield dispatcher
    for link in dispatcher.workers.values():
        link.close()
    for _, fd in requests:
        os.close(fd)
    poller.close()


@pytest.mark.parametrize("observed", [False, True])
def test_a_worker_that_is_asked_for_is_known_and_records_times_where_somebody_observes(starting, observed):
    recorded = []
    if observed:
        starting.resolver.observation = SimpleNamespace(record_times=recorded.append)
    watched = len(starting._poller._watches)
    assert act(starting, do.Spawn(3, 9)) is None
    link = starting.workers[3]
    assert (link.slot, link.generation) == (3, 9)
    assert len(starting._poller._watches) == watched + 2
    assert recorded == [link] * observed
    (tokens, its_tokens), (spawn, its_end) = starting.requests
    assert tokens == framing.encode(framing.TOKENS, 3, 9)
    assert spawn == framing.encode(framing.SPAWN, 3, 9, link.cookie)
    link.progress.put_tokens(1)
    assert os.eventfd_read(its_tokens) == 1, "it is the worker's end of these"
    link.post([b"for the worker"])
    assert os.read(its_end, 1) == b"\0", "with which its pipe comes"
    assert os.read(its_end, 100) == b"for the worker"


@pytest.mark.parametrize("refused", ["socketpair", "pipe", "eventfd"])
def test_a_worker_that_cannot_be_asked_for_says_what_was_refused_and_leaves_nothing_open(
    starting, refused, monkeypatch
):
    def refuse(*_):
        raise OSError("none left")

    module, name = {
        "socketpair": (dispatch.channels, "pair"),
        "pipe": (answers, "new_pipe"),
        "eventfd": (dispatch.tokens, "pair"),
    }[refused]
    before = open_descriptors()
    monkeypatch.setattr(module, name, refuse)
    with warnings.catch_warnings(record=True) as left_to_the_collector:
        warnings.simplefilter("always")
        assert act(starting, do.Spawn(3, 9)) == ev.SpawnFailed(3, 9, f"{refused}: none left")
    assert left_to_the_collector == []
    assert (starting.workers, starting.requests) == ({}, [])
    assert open_descriptors() == before


def test_workers_that_were_put_off_are_asked_for_once_and_what_fails_is_told(starting, monkeypatch):
    starting.defers_spawns = True
    for slot in (3, 4):
        assert act(starting, do.Spawn(slot, 9)) is None
    assert (starting.workers, starting.requests) == ({}, [])
    starting.defers_spawns = False
    failures = iter([None, ev.SpawnFailed(4, 9, "no more")])
    monkeypatch.setattr(starting, "_spawn", lambda action: next(failures))
    assert starting.spawn_deferred() == [ev.SpawnFailed(4, 9, "no more")]
    assert starting.deferred_spawns == []
    assert starting.spawn_deferred() == []


@pytest.mark.parametrize("action", [do.Stop(5, 7), do.Signal(5, 7, 9), do.DumpStack(5, 7)], ids=repr)
def test_what_is_asked_of_a_worker_whose_start_has_failed_is_passed_over(dispatcher, link, action):
    assert act(dispatcher, action) is None
    assert link.log == []
