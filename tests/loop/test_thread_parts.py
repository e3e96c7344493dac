"""The parts that serve workers, the template and deadlines, each by itself: no process, and a pool of fakes."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import SimpleNamespace

import pytest

from pidfdpool.loop.event_loop import EventLoop
from pidfdpool.loop.template_events import TemplateEvents
from pidfdpool.loop.worker_events import WorkerEvents
from pidfdpool.pidfd import ExitStatus
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import State, Template
from pidfdpool.serialization import payload
from pidfdpool.transport import framing


class Poller:
    among_greenlets = False

    def __init__(self, log):
        self.log = log
        self.serving = threading.RLock()

    def wake(self):
        self.log.append("wake")

    def wait(self, seconds):
        self.log.append("sleep")

    def serve_all(self):
        self.log.append("read all")


class Outbox:
    in_leader = False

    def __init__(self, log):
        self.log, self.left = log, []

    def run(self, resolutions):
        for resolution in resolutions:
            resolution()

    leave = run

    def run_left(self):
        self.log.append("what was left")

    def finish(self):
        self.log.append("finish")


class Thread:
    """Stands for the pool thread, or for a system that has none to give."""

    def __init__(self, *, refused=False):
        self.refused, self.started, self.failure = refused, False, None
        self.prevented = False

    def start(self):
        if self.refused:
            raise RuntimeError("can't start new thread")
        self.started = not self.prevented

    def prevent(self):
        self.prevented = not self.started
        return self.prevented

    def note_end(self):
        self.started = False


class Core:
    """As much of a pool as these parts ask for. `log` has all that they do with it, in order."""

    def __init__(self, *, fork=False):
        self.log = []
        self.lock = threading.RLock()
        self.readiness = threading.Condition(self.lock)
        self.machine = SimpleNamespace(
            template=Template.UP,
            counts=dict.fromkeys(State, 0),
            size=2,
            deadline=lambda: None,
            give_up=lambda reason: None,
            held=lambda slot, generation: [],
            take_answers=lambda *_: 0,
        )
        self.recipe = SimpleNamespace(fork=fork, runs_script=False)
        self.poller, self.outbox, self.thread = Poller(self.log), Outbox(self.log), Thread()
        self.closed = self.abandoned = self.template_wanted = False
        self.is_reentered = self.is_at_work_here = self.has_deferred = False
        self.workers, self.tasks, self.undelivered, self.awaited, self.sleeps_until = {}, {}, {}, 0, None
        self.dispatcher = SimpleNamespace(template=None)
        self.logs = None
        self.resolver = SimpleNamespace(
            cause=None,
            observation=None,
            deaths=SimpleNamespace(read_memory_events=lambda: self.log.append("memory events")),
            broken_error=RuntimeError,
            failing=lambda number, error: lambda: self.log.append(f"task {number} fails"),
        )
        self.admission = SimpleNamespace(refuse=list, waiting=[])
        self.watchdog = SimpleNamespace(limit=lambda seconds: seconds, look=lambda: None, end=lambda: None)
        self.leadership = SimpleNamespace(end=lambda: None, close=lambda: None)
        self.leases = SimpleNamespace(arena=SimpleNamespace(segments=[], to_unmap=[]), close=lambda: None)
        self.resolutions = []

    @property
    def template(self):
        return self.dispatcher.template

    @property
    def events(self):
        return [each for each in self.log if isinstance(each, ev.Event)]

    def catch_up(self):
        self.log.append("catch up")

    def handle(self, event, context=None):
        self.log.append(event)

    def decide(self, event, context=None):
        assert self.lock._is_owned()
        self.log.append(event)
        return self.resolutions

    decide_guarded = decide_death = decide

    def defer(self, event):
        self.log.append(("deferred", event))

    def spawn_deferred(self):
        self.log.append("spawn")

    def relay_logs(self):
        """Do nothing: no logs are relayed here."""

    def check_open(self):
        pass


class Worker:
    """The host's end of a worker. `texts` are the frames that each read returns."""

    def __init__(self, core, slot=0, generation=7, *, texts=(), status=None, watched=True, ended=False):
        self.core, self.slot, self.generation = core, slot, generation
        self.texts, self.reading, self.ready_early, self.rejected = list(texts), True, False, False
        self.ended_at = 1.0 if ended else None
        self.status, self.overdue_at, self.report_within = None, 100.0, 1.0
        self.name = (slot, generation, 1)
        self.handle = SimpleNamespace(exit_status=lambda: status) if watched else None
        self.source = self.answers = SimpleNamespace(received=0, error=None)
        self.answers.receive_when_pipe_is_ready = self.answers.receive_when_channel_is_ready = None
        self.progress = SimpleNamespace(unbegun=lambda _held: [])
        self.account = SimpleNamespace(close=lambda: None)
        core.workers[slot] = self

    def note(self, what):
        self.core.log.append(f"{what} {self.slot}")

    def read(self, _receive=None):
        if not self.texts:
            self.reading = False
            return []
        self.source.received += 1
        return self.texts.pop(0)

    def flush(self):
        self.note("flush")

    def evidence(self):
        return None

    def stop_watching_exit(self):
        self.note("unwatch")

    def watch_exit(self, handle, _serve):
        self.handle = handle

    def signal(self, number):
        self.note(f"signal {number}")

    def close(self):
        self.note("close")


def frame(kind, slot=0, generation=7, value=0, buffers=()):
    return framing.Frame(kind, slot, generation, value, list(buffers))


UNHEALTHY = frame(framing.UNHEALTHY, buffers=[b"tired"])
STATUS = ExitStatus(signal=signal.SIGSEGV)


@pytest.fixture
def core():
    return Core()


# ---- the events of workers ---------------------------------------------------------------------------------------


def test_an_end_of_file_of_a_worker_that_has_not_ended_is_reported(core):
    WorkerEvents(core).on_channel(Worker(core), 0)
    assert core.events == [ev.ChannelClosed(0, 7)]


def test_what_the_leader_has_left_comes_before_what_is_read(core):
    WorkerEvents(core).on_channel(Worker(core, texts=[[UNHEALTHY]]), 0)
    assert core.log == ["what was left", ev.Unhealthy(0, 7, "tired")]


def test_a_worker_that_ended_is_kept_until_the_template_reports_how_but_what_it_wrote_counts_now(core):
    core.dispatcher.template = object()
    events, link = WorkerEvents(core), Worker(core, texts=[[UNHEALTHY]], status=STATUS)
    events.on_exit(link, 0)
    assert core.log == ["unwatch 0", ev.Unhealthy(0, 7, "tired"), "memory events"]
    assert (events.unreported, core.workers) == ([link], {0: link})


def test_without_a_template_a_pidfd_itself_tells_how_a_worker_ended(core):
    WorkerEvents(core).on_exit(Worker(core, status=STATUS), 0)
    assert core.events == [ev.Died(0, 7, STATUS, [])]
    assert core.workers == {}


def test_a_report_that_is_overdue_is_waited_for_no_longer_and_the_rest_of_the_group_is_killed(core):
    core.dispatcher.template = object()
    events, link = WorkerEvents(core), Worker(core)
    events.on_exit(link, 0)
    events.remove_overdue(99.0)
    assert core.events == []
    events.remove_overdue(100.0)
    assert core.events == [ev.Died(0, 7, ExitStatus.UNKNOWN, [])]
    assert core.log.index("signal 9 0") < core.log.index(core.events[0])
    assert events.unreported == []


def test_all_reports_that_are_overdue_are_waited_for_no_longer(core):
    core.dispatcher.template = object()
    events = WorkerEvents(core)
    for slot in range(3):
        events.on_exit(Worker(core, slot), 0)
    events.remove_overdue(100.0)
    assert core.events == [ev.Died(slot, 7, ExitStatus.UNKNOWN, []) for slot in range(3)]
    assert events.unreported == []


def test_the_last_of_a_dead_worker_is_read_before_its_death_is_decided_and_another_is_asked_for_at_the_end(core):
    core.resolutions = [lambda: core.log.append("its future fails")]
    WorkerEvents(core).remove(Worker(core, texts=[[], [UNHEALTHY]], ended=True), STATUS)
    died = ev.Died(0, 7, STATUS, [])
    assert core.log == [ev.Unhealthy(0, 7, "tired"), died, "its future fails", "close 0", "spawn"]


def test_the_channel_of_a_dead_worker_is_closed_even_if_a_callback_raises(core):
    core.resolutions = [lambda: 1 / 0]
    with pytest.raises(ZeroDivisionError):
        WorkerEvents(core).remove(Worker(core), STATUS)
    assert core.log[-1] == "close 0"


# ---- the events of the template ----------------------------------------------------------------------------------


class TemplateLink:
    def __init__(self, core, *reads, descriptors=()):
        self.reads, self.core = list(reads), core
        given = iter(descriptors)
        self.channel = SimpleNamespace(next_descriptor=lambda: next(given, None))
        self.end = SimpleNamespace(pid=5, early_frames=[], worker_handle=lambda *made_of: made_of, handle=object())
        self.handle = SimpleNamespace(exit_status=lambda: STATUS)
        core.dispatcher.template = self

    def read(self):
        return self.reads.pop(0) if self.reads else []

    def close(self):
        self.core.log.append("close template")


@pytest.fixture
def template_events(core):
    return TemplateEvents(core, WorkerEvents(core))


def test_a_worker_is_watched_before_it_counts_as_spawned(core, template_events):
    link = Worker(core, watched=False)
    link.ready_early = True
    spawned = frame(framing.SPAWNED, value=1234)
    template_events.handle_frames(TemplateLink(core, descriptors=[77]), [spawned])
    assert link.handle == (77, 1234, 0, 7)
    assert core.events == [ev.Spawned(0, 7, 1234), ev.Ready(0, 7)], "it had said so before"


def test_a_worker_whose_descriptor_has_not_come_is_given_up(core, template_events):
    Worker(core, watched=False)
    template_events.handle_frames(TemplateLink(core), [frame(framing.SPAWNED, value=1234)])
    assert core.log == ["close 0", ev.SpawnFailed(0, 7, "no descriptor number left")]
    assert core.workers == {}


def test_news_of_a_worker_that_was_replaced_concern_nobody_and_leave_no_descriptor(core, template_events):
    link = Worker(core, generation=8)
    reader, writer = os.pipe()
    news = [frame(framing.BLACK_BOX), frame(framing.DIED, value=9, buffers=[bytes(framing.USAGE.size)])]
    template_events.handle_frames(TemplateLink(core, descriptors=[writer]), news)
    os.set_blocking(reader, False)
    assert os.read(reader, 1) == b"", "the other end was closed"
    os.close(reader)
    assert (core.log, core.workers) == ([], {0: link})


def test_what_the_template_said_before_it_ended_counts_and_its_workers_are_killed(core, template_events):
    dead = Worker(core, 0, 7, ended=True)
    Worker(core, 1, 8)
    Worker(core, 2, 9, watched=False)
    died = frame(framing.DIED, 0, 7, signal.SIGSEGV, [framing.USAGE.pack(1 << 20, 0.5)])
    TemplateLink(core, [died], [frame(framing.BOOTED)])
    told = []
    core.resolutions = [lambda: told.append(core.lock._is_owned())]
    template_events.on_exit(0)
    assert told == [False] * 2, "of the death, and of what is lost with the template"
    kinds = [type(each) for each in core.events]
    assert kinds == [ev.Died, ev.TemplateBooted, ev.TemplateLost]
    assert core.events[0].status == STATUS
    assert dead.usage == (1 << 20, 0.5)
    assert core.log[-4:-1] == ["close template", "signal 9 1", "close 2"]
    assert (core.template, list(core.workers)) == (None, [1])


@pytest.mark.parametrize(
    ("fork", "asked", "event"),
    [(False, False, ev.TemplateLost), (True, False, ev.TemplateUnusable), (True, True, ev.TemplateLost)],
)
def test_a_template_that_was_forked_from_the_host_cannot_be_replaced(fork, asked, event):
    core = Core(fork=fork)
    core.machine.template = Template.STOPPING if asked else Template.UP
    TemplateLink(core)
    TemplateEvents(core, WorkerEvents(core)).on_exit(0)
    assert [type(each) for each in core.events] == [event]


def test_a_template_that_has_said_why_it_ends_is_lost_once(core, template_events):
    failed = frame(framing.PRELOAD_FAILED, buffers=payload.dump_error(LookupError("no"), None))
    TemplateLink(core, [failed])
    template_events.on_exit(0)
    assert [type(each) for each in core.events] == [ev.TemplateUnusable]


def test_what_a_template_said_before_it_was_watched_is_taken_once(core, template_events):
    TemplateLink(core).end.early_frames = [frame(framing.BOOTED)]
    template_events.handle_early_frames()
    template_events.handle_early_frames()
    assert core.events == [ev.TemplateBooted()]


# ---- the loop ----------------------------------------------------------------------------------------------------


class Parts:
    """What the loop takes turns with: workers, template and starter in one. The first turn is the last one."""

    def __init__(self, core):
        self.core, self.unreported, self.reads_all = core, [], False

    def start_if_wanted(self):
        self.core.log.append("start")

    def handle_early_frames(self):
        self.core.log.append("early frames")

    def remove_overdue(self, now):
        self.core.log.append("overdue")


@pytest.fixture
def parts(core):
    return Parts(core)


@pytest.fixture
def loop(core, parts):
    return EventLoop(core, parts, parts, parts)


def end_by(core, kind):
    """Close the pool by this event, as the machine would."""
    handle = core.handle

    def closing(event, context=None):
        handle(event)
        core.closed = core.closed or type(event) is kind

    core.handle = closing


ENDED = ["finish", "catch up"]


def test_everything_is_read_before_a_deadline_is_judged(core, loop, parts):
    core.machine.deadline = lambda: 0.0
    read = []
    core.poller.serve_all = lambda: read.append(parts.reads_all)
    end_by(core, ev.Tick)
    loop.run()
    assert (read, parts.reads_all) == ([True], False)
    assert core.log[:4] == ["catch up", "start", "early frames", "overdue"]
    assert [type(each) for each in core.events] == [ev.Tick]
    assert core.events[0].read_until > 0
    assert "sleep" not in core.log, "it is over already"


@pytest.mark.parametrize("later", [None, 1e9])
def test_a_report_that_is_overdue_ends_the_wait_whatever_else_is_due_later(core, loop, parts, later):
    parts.unreported = [SimpleNamespace(overdue_at=50.0), SimpleNamespace(overdue_at=0.0)]
    core.machine.deadline = lambda: later
    end_by(core, ev.Tick)
    core.poller.wait = lambda seconds: setattr(core, "closed", True)  # as if something had ended the wait
    loop.run()
    assert core.sleeps_until == 0.0
    assert "overdue" in core.log


def test_a_lost_executor_shuts_the_pool_down_once(core, loop):
    loop.owner_lost = True
    end_by(core, ev.ShutdownRequested)
    loop.run()
    assert core.events == [ev.ShutdownRequested()]
    assert not loop.owner_lost


def test_while_another_thread_submits_what_a_lost_executor_has_left_it_looks_again_and_again(core, loop):
    """Nobody wakes the pool's thread when that is done."""
    outcomes, slept = [False, False, True], []
    loop.owner_lost = True
    loop.unsubmitted = SimpleNamespace(submit_without_waiting=lambda: outcomes.pop(0))
    core.poller.wait = slept.append
    end_by(core, ev.ShutdownRequested)
    loop.run()
    assert [type(event) for event in core.events if type(event) is not ev.Tick] == [ev.ShutdownRequested]
    assert outcomes == []
    assert len(slept) >= 2
    assert all(seconds is not None and seconds < 1 for seconds in slept[:2])
    assert loop.unsubmitted is None


def test_at_the_end_everything_is_closed_and_what_is_left_is_run(core, loop):
    Worker(core)
    TemplateLink(core)
    core.poller.wait = lambda seconds: setattr(core, "closed", True)
    core.thread.start()
    loop.run()
    assert core.log[-4:] == ["close 0", "close template", *ENDED]
    assert (core.workers, core.template, core.thread.started) == ({}, None, False)


def test_who_waits_for_room_at_the_end_is_told_of_it(core, loop):
    """It may have come to wait when the pool was about to close."""
    told = []
    core.admission.refuse = lambda: [lambda: told.append("refused")]
    core.poller.wait = lambda seconds: setattr(core, "closed", True)
    loop.run()
    assert [resolution() for resolution in core.outbox.left] == [None]
    assert told == ["refused"]
    assert core.log[-2:] == ENDED


def test_if_the_loop_itself_fails_every_future_fails_and_every_worker_is_killed(core, loop, parts, caplog):
    Worker(core)
    core.tasks = {1: None}
    parts.start_if_wanted = lambda: 1 / 0
    loop.run()
    assert core.log[-5:] == ["signal 9 0", "task 1 fails", "close 0", *ENDED]
    assert "the pool thread failed" in caplog.text
    assert type(core.resolver.cause) is ZeroDivisionError


def test_a_forked_child_closes_nothing_of_its_parents(core, loop, parts):
    Worker(core)

    def fork():
        core.closed = core.abandoned = True
        raise OSError("the descriptors are closed")

    parts.start_if_wanted = fork
    with suppress(OSError):
        loop.run()
    assert core.log == ["catch up"]
