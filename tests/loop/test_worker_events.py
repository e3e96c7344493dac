"""What is read of a worker, in which way, and what follows from its end: with a pool of fakes, and no process."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from pidfdpool.loop.poller import READ, WRITE
from pidfdpool.loop.worker_events import WorkerEvents
from pidfdpool.pidfd import ExitStatus
from pidfdpool.scheduler import events as ev
from pidfdpool.transport import framing
from tests.loop import test_thread_parts as parts
from tests.loop.test_thread_parts import STATUS, UNHEALTHY, Core

TIRED = ev.Unhealthy(0, 7, "tired")


class Worker(parts.Worker):
    """The host's end of a worker. A text may be an error that a read raises."""

    def __init__(self, core, *args, **options):
        super().__init__(core, *args, **options)
        self.ways = []
        self.rejected = False
        self.answers.receive_when_pipe_is_ready = "by pipe"
        self.answers.receive_when_channel_is_ready = "by channel"

    def read(self, receive=None):
        self.ways.append(receive)
        if self.texts and isinstance(self.texts[0], Exception):
            raise self.texts.pop(0)
        return super().read(receive)

    def read_all(self, serve):
        while self.texts:
            serve()

    def stop_reading(self):
        self.reading = False

    def flush(self):
        assert self.core.lock._is_owned()
        super().flush()

    def stop_watching_exit(self):
        assert self.core.lock._is_owned()
        super().stop_watching_exit()

    def close(self):
        assert self.core.lock._is_owned()
        super().close()


@pytest.fixture
def core():
    return Core()


@pytest.fixture
def events(core):
    return WorkerEvents(core)


# ---- reading -----------------------------------------------------------------------------------------------------


def test_what_is_ready_is_read_first_and_once(core, events):
    link = Worker(core, texts=[[UNHEALTHY], [UNHEALTHY], []])
    events.on_answers(link, READ)
    events.on_channel(link, READ)
    assert link.ways == ["by pipe", "by channel"]
    assert core.events == [TIRED] * 2


@pytest.mark.parametrize("mask", [WRITE, READ | WRITE])
def test_a_channel_that_takes_more_is_sent_more_and_is_read_only_if_there_is_something(core, events, mask):
    link = Worker(core, texts=[[UNHEALTHY]])
    events.on_channel(link, mask)
    assert core.log == (["flush 0"] if mask == WRITE else ["flush 0", "what was left", TIRED])
    assert link.ways == ["by channel"] * (mask != WRITE)


def test_the_leader_does_not_run_what_it_has_left_to_the_pool_thread(core, events):
    core.outbox.in_leader = True
    events.on_answers(Worker(core, texts=[[UNHEALTHY]]), READ)
    assert core.log == [TIRED]


def test_before_deadlines_are_judged_all_is_read_that_a_worker_has_written(core, events):
    link = Worker(core, texts=[[UNHEALTHY], [UNHEALTHY]])
    events.reads_all = True
    events.on_answers(link, READ)
    events.on_channel(link, READ)
    assert core.events == [TIRED] * 2
    assert link.ways == ["by pipe"] * 2


def test_nothing_to_read_at_this_moment_is_no_end_of_file(core, events):
    events.on_channel(Worker(core, texts=[[]]), READ)
    assert core.events == []


def test_an_end_of_file_behind_the_end_of_the_process_is_no_news(core, events):
    events.on_channel(Worker(core, ended=True), READ)
    assert core.events == []


def test_a_last_word_is_taken_and_only_then_the_end_of_file(core, events):
    link = Worker(core, texts=[[UNHEALTHY]])
    link.stop_reading()  # with what was read last
    events.on_channel(link, READ)
    assert core.events == [TIRED]
    events.on_channel(link, READ)
    assert core.events == [TIRED, ev.ChannelClosed(0, 7)]


def test_a_worker_that_breaks_the_rules_is_rejected_with_what_it_wrote(core, events):
    events.on_answers(Worker(core, texts=[framing.ProtocolError("nonsense")]), READ)
    assert core.events == [ev.ProtocolViolated(0, 7, "nonsense")]


def test_what_came_before_the_nonsense_counts(core, events):
    link = Worker(core, texts=[[UNHEALTHY]])
    link.source.error = framing.ProtocolError("nonsense")
    events.on_answers(link, READ)
    assert core.events == [TIRED, ev.ProtocolViolated(0, 7, "nonsense")]


# ---- the end -----------------------------------------------------------------------------------------------------


def test_when_a_worker_ended_is_noted(core, events):
    core.dispatcher.template = object()
    link = Worker(core)
    before = time.monotonic()
    events.on_exit(link, READ)
    assert before <= link.ended_at <= time.monotonic()
    assert core.events == [], "an end of file is no news then"


def test_a_worker_whose_end_the_template_has_reported_before_is_removed_at_once(core, events):
    core.dispatcher.template = object()
    link = Worker(core, status=STATUS)
    link.status = ExitStatus(code=3)
    events.on_exit(link, READ)
    assert core.events == [ev.Died(0, 7, ExitStatus(code=3), [])], "as it was reported"
    assert events.unreported == []
    assert "memory events" not in core.log


def test_while_there_is_a_template_its_report_is_waited_for_though_the_pidfd_tells_the_status(core, events):
    core.dispatcher.template = object()
    link = Worker(core, status=STATUS)
    events.on_exit(link, READ)
    assert (events.unreported, link.status) == ([link], None)


@pytest.mark.parametrize("status", [None, ExitStatus.UNKNOWN])
def test_without_a_template_a_status_that_is_not_known_yet_is_waited_for(core, events, status):
    """The process that inherits the worker reaps it in a moment."""
    link = Worker(core, status=status)
    events.on_exit(link, READ)
    assert (core.events, events.unreported, link.status) == ([], [link], None)


def test_the_counters_of_memory_are_read_at_once_and_under_the_lock(core, events):
    held = []
    core.resolver.deaths.read_memory_events = lambda: held.append(core.lock._is_owned())
    core.dispatcher.template = object()
    events.on_exit(Worker(core), READ)
    assert held == [True]


def overdue(core, events, *, status=None, watched=True):
    core.dispatcher.template = object()
    link = Worker(core, status=status)
    events.on_exit(link, READ)
    if not watched:
        link.handle = None
    core.log.clear()
    return link


@pytest.mark.parametrize("watched", [True, False])
def test_what_the_pidfd_tells_when_a_report_is_overdue_is_the_status(core, events, watched):
    link = overdue(core, events, status=STATUS, watched=watched)
    events.remove_overdue(link.overdue_at)
    assert core.events == [ev.Died(0, 7, STATUS if watched else ExitStatus.UNKNOWN, [])]


def test_of_reports_only_those_that_are_overdue_are_waited_for_no_longer(core, events):
    core.dispatcher.template = object()
    links = [Worker(core, slot) for slot in range(3)]
    for link in links:
        events.on_exit(link, READ)
    links[1].overdue_at = 50.0
    core.log.clear()
    events.remove_overdue(50.0)
    assert [event.slot for event in core.events] == [1]
    assert events.unreported == [links[0], links[2]]
    assert "signal 9 0" not in core.log


def test_of_a_channel_that_another_process_holds_open_only_what_is_there_is_read(core, events):
    link = Worker(core, ended=True)
    link.read = lambda _receive=None: link.ways.append("a read") or []  # nothing comes, and no end
    events.remove(link, STATUS)
    assert link.ways == ["a read"]
    assert core.events == [ev.Died(0, 7, STATUS, [])]


def test_a_death_is_decided_with_what_is_known_of_the_worker(core, events):
    held = {(0, 7): [3, 4, 5]}
    core.machine.held = lambda *of: held[of]
    evidence, found = object(), []
    decide = core.decide

    def deciding(event, context):
        found.extend([event, context, dict(core.workers), closed[:]])
        return decide(event)

    core.decide_death = deciding
    link, closed = Worker(core, ended=True), []
    link.progress = SimpleNamespace(unbegun=lambda numbers: numbers[1:])
    link.evidence = lambda: evidence
    link.account = SimpleNamespace(close=lambda: closed.append(core.lock._is_owned()))
    events.unreported.append(link)
    events.remove(link, STATUS)
    assert found == [ev.Died(0, 7, STATUS, [4, 5]), evidence, {}, [True]]
    assert events.unreported == []


def test_evidence_is_read_without_the_lock_and_behind_the_last_words(core, events):
    link = Worker(core, texts=[[UNHEALTHY]], ended=True)
    seen = []
    link.evidence = lambda: seen.append((core.lock._is_owned(), list(core.log)))
    events.remove(link, STATUS)
    assert seen == [(False, [TIRED])]


def test_a_worker_that_has_another_in_its_slot_by_now_leaves_that_alone(core, events):
    old = Worker(core, 0, 7, ended=True)
    new = Worker(core, 0, 8)
    events.remove(old, STATUS)
    assert core.workers == {0: new}
    assert core.events == [ev.Died(0, 7, STATUS, [])]


def test_what_follows_from_a_death_is_run_without_the_lock(core, events):
    held = []
    core.resolutions = [lambda: held.append(core.lock._is_owned())]
    core.spawn_deferred = lambda: held.append(core.lock._is_owned())
    events.remove(Worker(core, ended=True), STATUS)
    assert held == [False, False]
