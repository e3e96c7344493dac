"""What the template says, and what follows from each word of it: with a pool of fakes, and no process."""

from __future__ import annotations

import errno
import os
import signal
from types import SimpleNamespace

import pytest

from pidfdpool.loop.links import ORPHAN_GRACE
from pidfdpool.loop.poller import READ, WRITE
from pidfdpool.loop.template_events import TemplateEvents
from pidfdpool.loop.worker_events import WorkerEvents
from pidfdpool.pidfd import ExitStatus
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import Template
from pidfdpool.serialization import payload
from pidfdpool.transport import framing
from tests.conditions import open_descriptors
from tests.loop import test_thread_parts as parts
from tests.loop.test_thread_parts import STATUS, Core, frame


class Worker(parts.Worker):
    """Notes what it is given, and whether the pool's lock was held then."""

    def note(self, what):
        assert self.core.lock._is_owned(), what
        super().note(what)

    def watch_exit(self, handle, serve):
        assert self.core.lock._is_owned()
        super().watch_exit(handle, serve)
        self.serve_exit = serve

    def set_black_box(self, fd):
        self.black_box = fd

    def set_stderr(self, fd):
        assert self.core.lock._is_owned()
        self.stderr = fd


class Link(parts.TemplateLink):
    """The host's end of the template. Each of `reads` is what one read returns."""

    def watch_channel(self, serve):
        self.serve_channel = serve

    def watch_requests(self, lock):
        self.answers_under = lock

    def watch_exit(self, handle, serve):
        self.watched, self.serve_exit = handle, serve

    def flush(self):
        assert self.core.lock._is_owned()
        self.core.log.append("flush")

    def read_all(self, serve):
        while self.reads:
            serve()

    def close(self):
        assert self.core.lock._is_owned()
        super().close()


@pytest.fixture
def core():
    return Core()


@pytest.fixture
def workers(core):
    return WorkerEvents(core)


@pytest.fixture
def events(core, workers):
    return TemplateEvents(core, workers)


# ---- what is watched ---------------------------------------------------------------------------------------------


def test_the_channel_and_the_end_of_a_template_are_watched_each_for_itself(core, events):
    link = Link(core, [frame(framing.BOOTED)])
    events.watch(link)
    link.serve_channel(READ)
    assert core.events == [ev.TemplateBooted()]
    assert link.answers_under is core.lock
    events.watch_exit(link)
    assert link.watched is link.end.handle
    link.serve_exit(READ)
    assert type(core.events[-1]) is ev.TemplateLost


@pytest.mark.parametrize("early", [True, False])
def test_the_pool_thread_is_woken_for_what_a_template_said_before_it_was_watched_and_only_for_that(
    core, events, early
):
    link = Link(core)
    link.end.early_frames = [frame(framing.BOOTED)] if early else []
    events.watch_exit(link)
    assert core.log == ["wake"] * early


def test_what_was_said_early_is_taken_by_one_thread_at_a_time_and_nobody_says_anything_without_a_template(
    core, events
):
    events.handle_early_frames()
    held = []
    core.handle = lambda event: held.append((core.poller.serving._is_owned(), core.lock._is_owned()))
    Link(core).end.early_frames = [frame(framing.BOOTED)]
    events.handle_early_frames()
    assert held == [(True, False)], "a leader may not read meanwhile, and the pool's lock is free"


# ---- the channel -------------------------------------------------------------------------------------------------


def test_a_channel_of_a_template_that_is_gone_meanwhile_is_no_trouble(core, events):
    events.on_channel(READ | WRITE)
    assert core.log == []


@pytest.mark.parametrize("mask", [READ, WRITE, READ | WRITE])
def test_what_is_unsent_is_sent_when_the_channel_takes_it_and_what_is_there_is_read(core, events, mask):
    Link(core, [frame(framing.BOOTED)], [frame(framing.BOOTED)])
    events.on_channel(mask)
    assert core.log == ["flush"] * bool(mask & WRITE) + [ev.TemplateBooted()]


def test_before_deadlines_are_judged_all_is_read_that_the_template_has_written(core, events, workers):
    link = Link(core, [frame(framing.BOOTED)], [], [frame(framing.BOOTED)])
    workers.reads_all = True
    events.on_channel(READ)
    assert core.events == [ev.TemplateBooted()] * 2
    assert link.reads == []


# ---- what was said -----------------------------------------------------------------------------------------------


def test_evidence_belongs_to_its_worker_each_kind_in_its_place(core, events):
    first, second = Worker(core, 0, 7), Worker(core, 1, 8)
    said = [frame(framing.STDERR, 0, 7), frame(framing.BLACK_BOX, 0, 7), frame(framing.STDERR, 1, 8)]
    events.handle_frames(Link(core, descriptors=[101, 102, 103]), said)
    assert (first.stderr, first.black_box, second.stderr) == (101, 102, 103)
    assert not hasattr(second, "black_box")
    assert core.events == []


@pytest.mark.parametrize("kind", [framing.BLACK_BOX, framing.STDERR])
def test_evidence_whose_descriptor_has_not_come_is_lacking_and_that_is_all(core, events, kind):
    link = Worker(core)
    events.handle_frames(Link(core), [frame(kind)])
    assert not hasattr(link, "black_box")
    assert not hasattr(link, "stderr")
    assert (core.log, core.workers) == ([], {0: link})


@pytest.mark.parametrize("kind", [framing.BLACK_BOX, framing.STDERR, framing.SPAWNED])
@pytest.mark.parametrize("known", [{}, {0: 8}], ids=["none", "another"])
def test_descriptors_of_workers_that_are_not_known_any_more_are_closed(core, events, kind, known):
    """Guards: that of a worker itself stayed open until the host ended."""
    links = [Worker(core, slot, generation) for slot, generation in known.items()]
    before = open_descriptors()
    _, writer = ends = os.pipe()
    os.close(ends[0])
    events.handle_frames(Link(core, descriptors=[writer]), [frame(kind, value=1234)])
    assert open_descriptors() == before
    assert list(core.workers.values()) == links


def test_a_worker_that_was_spawned_is_watched_with_its_own_end_and_is_not_ready_before_it_says_so(core, events):
    links = [Worker(core, slot, 7, watched=False, status=STATUS) for slot in (0, 1)]
    spawned = [frame(framing.SPAWNED, slot, 7, 1234 + slot) for slot in (0, 1)]
    events.handle_frames(Link(core, descriptors=[77, 78]), spawned)
    assert core.events == [ev.Spawned(0, 7, 1234), ev.Spawned(1, 7, 1235)]
    for link in reversed(links):
        core.log.clear()
        link.handle, link.status = SimpleNamespace(exit_status=lambda: None), STATUS
        link.serve_exit(READ)
        assert core.log[0] == f"unwatch {link.slot}"
        assert core.events == [ev.Died(link.slot, 7, STATUS, [])]


def test_a_worker_that_was_ready_early_is_ready_behind_its_birth_and_without_the_lock(core, events):
    Worker(core, watched=False).ready_early = True
    handled = []
    core.handle = lambda event: handled.append((type(event), core.lock._is_owned()))
    events.handle_frames(Link(core, descriptors=[77]), [frame(framing.SPAWNED, value=1234)])
    assert handled == [(ev.Spawned, False), (ev.Ready, False)]


def test_a_fork_that_failed_is_told_with_its_reason_and_the_hosts_end_is_closed(core, events):
    Worker(core, 0, 7, watched=False)
    other = Worker(core, 1, 8, watched=False)
    events.handle_frames(Link(core), [frame(framing.SPAWN_FAILED, 0, 7, errno.EAGAIN)])
    reason = f"[Errno {errno.EAGAIN}] the template could not fork"
    assert core.log == ["close 0", ev.SpawnFailed(0, 7, reason)]
    assert core.workers == {1: other}


@pytest.mark.parametrize("kind", [framing.SPAWN_FAILED, framing.DIED])
def test_a_failure_of_an_earlier_worker_leaves_the_present_one_of_its_slot_alone(core, events, kind):
    link = Worker(core, 0, 8)
    events.handle_frames(Link(core), [frame(kind, 0, 7, 9, [bytes(framing.USAGE.size)])])
    assert core.workers == {0: link}
    assert (link.status, link.texts, "close 0" in core.log) == (None, [], False)
    assert core.events == (
        [ev.SpawnFailed(0, 7, "[Errno 9] the template could not fork")] if kind != framing.DIED else []
    )


def test_a_death_is_told_with_its_own_status_and_what_the_worker_had_used(core, events):
    link = Worker(core, status=ExitStatus(code=1), ended=True)
    died = frame(framing.DIED, value=3 << 8, buffers=[framing.USAGE.pack(5 << 20, 0.25)])
    events.handle_frames(Link(core), [died])
    assert core.events == [ev.Died(0, 7, ExitStatus(code=3), [])]
    assert (link.status, link.usage) == (ExitStatus(code=3), (5 << 20, 0.25))
    assert core.workers == {}


def test_a_preload_that_failed_breaks_the_pool_with_its_error_and_the_template_is_let_go_of(core, events):
    failed = frame(framing.PRELOAD_FAILED, buffers=payload.dump_error(LookupError("no table"), None))
    events.handle_frames(Link(core), [failed])
    assert core.log == ["close template", ev.TemplateUnusable("the preload failed: LookupError('no table')")]
    assert repr(core.resolver.cause) == "LookupError('no table')"
    assert core.template is None


def test_what_is_said_of_nothing_known_is_passed_over(core, events):
    link = Worker(core)
    events.handle_frames(Link(core), [frame(framing.HELLO)])
    assert (core.log, core.workers) == ([], {0: link})


# ---- the end of the template -------------------------------------------------------------------------------------


def test_the_reason_of_an_end_has_the_pid_and_the_status(core, events):
    Link(core)
    events.on_exit(READ)
    assert core.events == [ev.TemplateLost(f"the template (pid 5) ended: {STATUS}")]


def test_of_a_template_without_a_handle_no_status_is_told(core, events):
    Link(core).handle = None
    events.on_exit(READ)
    assert core.events == [ev.TemplateLost("the template (pid 5) ended: None")]


def test_of_a_forked_template_it_is_told_why_there_can_be_no_other():
    core = Core(fork=True)
    core.machine.template = Template.UP
    Link(core)
    TemplateEvents(core, WorkerEvents(core)).on_exit(READ)
    [event] = core.events
    assert event.reason.endswith(f"ended: {STATUS}. It was forked from the host, which forks only once.")


def test_everything_that_a_template_wrote_counts_before_its_end(core, events):
    Link(core, *[[frame(framing.BOOTED)]] * 3)
    events.on_exit(READ)
    assert [type(event) for event in core.events] == [ev.TemplateBooted] * 3 + [ev.TemplateLost]


def test_when_a_template_is_lost_its_workers_are_killed_and_reports_of_them_are_waited_for_a_moment_only(
    core, events
):
    alive, unborn = Worker(core, 0, 7), Worker(core, 1, 8, watched=False)
    link, decided = Link(core), []
    decide = core.decide

    def deciding(event):
        decided.append((core.template, dict(core.workers)))
        return decide(event)

    core.decide = deciding
    event = ev.TemplateLost("why")
    events.lose(event)
    assert core.log == ["close template", f"signal {signal.SIGKILL:d} 0", "close 1", event]
    assert (alive.report_within, unborn.handle) == (ORPHAN_GRACE, None)
    assert decided == [(None, {0: alive})], "by then the machine may ask for another template, and for workers"
    assert link.reads == []


def test_a_template_that_is_lost_already_is_lost_once_more_without_trouble(core, events):
    events.lose(ev.TemplateLost("its start was interrupted"))
    assert core.log == [ev.TemplateLost("its start was interrupted")]


def test_what_follows_from_a_loss_is_run_without_the_lock(core, events):
    Link(core)
    held = []
    core.resolutions = [lambda: held.append(core.lock._is_owned())]
    events.lose(ev.TemplateLost("why"))
    assert held == [False]
