"""Each step of a template's start, who waits for workers and for how long: with a pool of fakes, and no process."""

from __future__ import annotations

import errno
import functools
import operator
import signal
import threading
from types import SimpleNamespace

import pytest

from pidfdpool import PoolBroken, TemplateError
from pidfdpool.loop import template_starter
from pidfdpool.loop.template_starter import TemplateStarter
from pidfdpool.process import interruptible
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import State, Template
from tests.interrupting import Interrupted, places
from tests.loop import test_thread_parts as parts
from tests.loop.test_template_starter import Started, refuse, start_by
from tests.loop.test_thread_parts import Thread


class Core(parts.Core):
    """Notes whether the pool's lock is held where it matters."""

    broken = None

    def held(self, what):
        self.log.append((what, self.lock._is_owned()))

    def relay_logs(self):
        self.held("logs")

    def check_open(self):
        if self.broken is not None:
            raise self.broken


class Events:
    """Takes the place of the events of the template: notes what is watched and what is lost."""

    def __init__(self, core):
        self.core = core

    def watch(self, link):
        self.core.held("watch")

    def watch_exit(self, link):
        self.core.held("watch exit")

    def lose(self, event):
        self.core.log.append(("serving", self.core.poller.serving._is_owned()))
        self.core.log.append(event)


@pytest.fixture
def core():
    return Core()


@pytest.fixture
def starter(core):
    return TemplateStarter(core, Events(core))


@pytest.fixture
def client(core, monkeypatch):
    """Give what stands for the client that starts templates: `awaited` and `errors` say what comes of that."""
    client = SimpleNamespace(awaited=None, started=[], errors={}, finished=0)

    def start(recipe, mask, *, by_interpreter):
        client.started.append((recipe, mask, by_interpreter))
        client.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return SimpleNamespace(awaited=client.awaited)

    def step(name):
        def called(end, *_):
            core.held(name)
            if name in client.errors:
                raise client.errors.pop(name)

        return called

    start_by(monkeypatch, start)
    monkeypatch.setattr(template_starter, "TemplateLink", Started)
    for name in ("reap_launcher", "finish"):
        monkeypatch.setattr(template_starter.client, name, step(name))
    return client


# ---- the steps ---------------------------------------------------------------------------------------------------


def test_what_takes_long_is_done_without_the_lock_and_what_is_shared_with_it(core, starter, client):
    client.awaited = "a launcher"
    core.template_wanted = True
    core.resolutions = [lambda: core.held("resolution")]
    starter.start_if_wanted()
    assert core.log == [
        ("logs", False), ("watch", True), ev.TemplateUp(), ("reap_launcher", False), ("resolution", False),
        ("finish", False), ("watch exit", True),
    ]  # fmt: skip
    assert client.started == [(core.recipe, None, False)]


def test_a_template_that_has_said_hello_is_waited_for_no_more(core, starter, client):
    core.template_wanted = True
    starter.start_if_wanted()
    starter.start_if_wanted()
    assert [what for what, *_ in filter(lambda each: isinstance(each, tuple), core.log)].count("watch exit") == 1
    assert ("finish", False) not in core.log


def test_a_launcher_is_reaped_though_the_decision_failed_and_what_was_raised_goes_on(core, starter, client):
    def fail(event):
        raise ZeroDivisionError

    core.template_wanted, core.decide_guarded = True, fail
    with pytest.raises(ZeroDivisionError):
        starter.start_if_wanted()
    assert core.log[-1] == ("reap_launcher", False)


def test_when_a_template_never_says_hello_the_next_is_started_at_once_if_the_machine_wants_it(core, starter, client):
    client.awaited = "a launcher"
    client.errors["finish"] = OSError(errno.EMFILE, "no more")
    core.template_wanted = True
    lose = starter._template_events.lose

    def losing(event):
        lose(event)
        core.template_wanted = True

    starter._template_events.lose = losing
    starter.start_if_wanted()
    assert [by_interpreter for *_, by_interpreter in client.started] == [False, True]
    assert core.log.count(("serving", True)) == 1, "a leader may be reading the channels of its workers"
    assert core.log[-1] == ("watch exit", True)


def test_what_broke_an_earlier_start_is_the_cause_until_another_has_one(core, starter, client, monkeypatch):
    first = core.resolver.cause = LookupError()
    core.template_wanted = True
    starter.start_if_wanted()
    assert core.resolver.cause is first
    second = TemplateError("silent")
    start_by(monkeypatch, refuse(second))
    core.template_wanted = True
    starter.start_if_wanted()
    assert core.resolver.cause is second
    assert core.events[-1] == ev.TemplateUnusable("the template cannot be started: silent")


# ---- the first start ---------------------------------------------------------------------------------------------


def test_the_first_start_has_the_signals_that_were_blocked_before(core, starter, client):
    core.template_wanted = True
    assert starter.claim_first()
    starter.start_first(None, {signal.SIGUSR1})
    assert [mask for _, mask, _ in client.started] == [{signal.SIGUSR1}]
    assert core.thread.started
    assert not core.template_wanted


def test_where_no_template_is_wanted_there_is_a_thread_all_the_same(core, starter, client):
    assert starter.claim_first()
    starter.start_first(1, None)
    assert (core.log, client.started, core.thread.started) == ([], [], True)


def test_only_one_thread_claims_a_start_that_the_machine_wants(core, starter, client):
    class Claimed(Core):
        def __setattr__(self, name, value):
            if name == "template_wanted" and not value:
                held.append(self.lock._is_owned())
            super().__setattr__(name, value)

    held = []
    core.template_wanted = True
    core.__class__ = Claimed
    starter.claim_first()
    starter.start_first(None, None)
    starter.start_if_wanted()
    assert held == [True, True]


def test_a_signal_handler_that_wants_workers_starts_nothing_in_the_middle_of_a_decision(core, starter, client):
    core.is_reentered = core.is_at_work_here = core.template_wanted = True
    starter.prestart(2, wait=False, timeout=None)
    assert (client.started, core.thread.started) == ([], False)


def test_where_no_task_was_submitted_an_interrupted_start_cancels_none(core, starter, monkeypatch):
    start_by(monkeypatch, refuse(KeyboardInterrupt()))
    core.template_wanted = True
    starter.claim_first()
    with pytest.raises(KeyboardInterrupt):
        starter.start_first(None, None)
    assert core.events == [ev.TemplateLost("its start was interrupted")]
    assert ("serving", True) in core.log


def test_a_template_whose_start_was_interrupted_is_not_waited_for(core, starter, client):
    """Guards: the pool thread would wait for the HELLO of a template that was let go of."""
    client.awaited = "a launcher"
    client.errors["reap_launcher"] = KeyboardInterrupt()
    core.template_wanted = True
    starter.claim_first()
    with pytest.raises(KeyboardInterrupt):
        starter.start_first(None, None)
    starter.start_if_wanted()
    assert ("finish", False) not in core.log


def test_who_makes_the_first_start_is_known_until_it_is_over_also_if_it_is_made_again(core, starter):
    core.thread = starter._thread = Thread(refused=True)
    assert not starter.starts_elsewhere
    for _ in range(2):
        claimed, go_on = threading.Event(), threading.Event()

        def ask(claimed=claimed, go_on=go_on):
            assert starter.claim_first()
            claimed.set()
            return go_on.wait(30)

        def start(ask=ask):
            with pytest.raises(RuntimeError):
                starter.run_first(ask, None)

        other = threading.Thread(target=start)
        other.start()
        assert claimed.wait(30)
        assert starter.starts_elsewhere
        assert not starter.claim_first()
        go_on.set()
        other.join()
        assert not starter.starts_elsewhere
    assert starter.claim_first()
    assert not starter.starts_elsewhere, "it is made here"


def test_a_pool_that_can_have_no_thread_is_closed_with_the_lock_held(core, starter):
    core.thread = starter._thread = Thread(refused=True)
    core.leadership.close = lambda: core.held("closed")
    starter.claim_first()
    with pytest.raises(RuntimeError):
        starter.start_first(None, None)
    assert core.log[-1] == ("closed", True)


# ---- waiting for workers -----------------------------------------------------------------------------------------


@pytest.fixture
def waiting(core, monkeypatch):
    """Have each wait for readiness be followed by one of these changes of the pool; return how it was waited."""

    def prepare(*changes):
        waits, left = [], list(changes)

        def wait(done, condition, timeout):
            assert condition is core.readiness
            while not done() and timeout != 0:
                waits.append((core.awaited, core.lock._is_owned()))
                left.pop(0)()

        core.readiness = SimpleNamespace(notify_all=lambda: None)
        monkeypatch.setattr(template_starter.interruptible, "wait", wait)
        core.thread.start()
        return waits

    return prepare


def have(core, **numbers):
    core.machine.counts.update({State[name]: number for name, number in numbers.items()})


@pytest.mark.parametrize(
    ("idle", "busy", "starting", "template", "deferred", "count", "waits"),
    [
        (2, 0, 0, Template.UP, False, 2, False),
        (0, 2, 0, Template.UP, False, 2, False),
        (1, 1, 0, Template.UP, False, 2, False),
        (1, 0, 1, Template.UP, False, 1, False),
        (2, 0, 0, Template.STARTING, True, 9, False),
        (1, 0, 1, Template.UP, False, 2, True),
        (1, 0, 0, Template.STARTING, False, 2, True),
        (1, 0, 0, Template.UP, True, 2, True),
        (1, 0, 0, Template.UP, False, 2, False),
        (0, 0, 0, Template.UP, False, 2, True),
        (0, 0, 0, Template.UP, False, 0, False),
    ],
    ids=[
        "all idle",
        "all busy",
        "one each",
        "enough",
        "more than the size",
        "one starts",
        "a template starts",
        "something deferred",
        "no more to come",
        "none yet",
        "none wanted",
    ],
)
def test_who_asks_for_workers_waits_while_more_are_to_come_or_there_are_none(
    core, starter, waiting, idle, busy, starting, template, deferred, count, waits
):
    have(core, IDLE=idle, BUSY=busy, STARTING=starting)
    core.machine.template, core.has_deferred = template, deferred

    def come():
        have(core, IDLE=2, BUSY=0, STARTING=0)

    waited = waiting(come)
    ready = starter.prestart(count, wait=True, timeout=None)
    assert (len(waited), ready) == ((1, 2) if waits else (0, idle + busy))
    assert core.awaited == 0
    assert all(each == (1, False) for each in waited), "others could not bring workers meanwhile"


def test_workers_that_a_signal_handler_has_asked_for_are_on_their_way(core, starter, waiting):
    """Guards: the pool thread has not decided yet, so no worker starts and no template; the one there is not all."""
    have(core, IDLE=1, BUSY=0, STARTING=0)
    core.machine.template, core.has_deferred = Template.UP, True
    waited = waiting(lambda: have(core, IDLE=2))
    assert starter.prestart(2, wait=True, timeout=None) == 2
    assert len(waited) == 1


def test_without_waiting_and_without_time_those_are_counted_that_are_ready(core, starter, waiting):
    have(core, IDLE=1, STARTING=1)
    waited = waiting()
    assert starter.prestart(2, wait=False, timeout=None) == 1
    assert starter.prestart(2, wait=False, timeout=9.0) == 1
    assert starter.prestart(2, wait=True, timeout=0) == 1
    assert waited == []
    core.is_at_work_here = True
    assert starter.prestart(2, wait=True, timeout=None) == 1, "who brings the workers cannot wait for them"
    assert core.events == [ev.PrestartRequested(2)] * 4


def test_a_timeout_is_for_all_of_it(core, starter, client, monkeypatch):
    """For the start of the template, too, which the caller makes."""
    now = [100.0]
    steps = []

    def wait_steps(timeout):
        steps.append(timeout)
        return SimpleNamespace(next=lambda: 0.0)

    monkeypatch.setattr(template_starter, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(template_starter.interruptible, "WaitSteps", wait_steps)
    core.thread.start = lambda: now.__setitem__(0, 104.0)
    starter.prestart(1, wait=True, timeout=10.0)
    starter.prestart(1, wait=True, timeout=None)
    assert steps == [6.0, None]


def test_a_wait_for_workers_ends_when_its_time_is_over(core, starter):
    have(core, IDLE=1, STARTING=1)
    core.thread.start()
    core.readiness = threading.Condition()
    assert starter.prestart(2, wait=True, timeout=0.05) == 1
    assert core.awaited == 0


@pytest.mark.parametrize("ready", [0, 2], ids=["it waits", "all are ready"])
def test_a_handler_that_raises_in_a_wait_for_workers_is_what_the_caller_gets(core, starter, ready):
    have(core, IDLE=ready, STARTING=2)
    core.thread.start()
    core.readiness = interruptible.Condition(core.lock)

    def prestart():
        try:
            starter.prestart(2, wait=True, timeout=0.001)
        except Interrupted as error:
            raised.append(error)

    raised = []
    begins = functools.partial(operator.is_, template_starter.TemplateStarter._await.__code__)
    names = list(places(lambda: prestart, begins))
    assert len(raised) == len(names) > 10
    assert core.lock.acquire(blocking=False)
    core.lock.release()


def test_a_pool_that_breaks_while_workers_are_waited_for_is_no_place_to_wait(core, starter, waiting):
    have(core, STARTING=1)
    waited = waiting(lambda: setattr(core, "broken", PoolBroken("they die")))
    with pytest.raises(PoolBroken, match="they die"):
        starter.prestart(2, wait=True, timeout=None)
    assert (len(waited), core.awaited) == (1, 0)


def test_a_pool_that_is_broken_is_asked_for_nothing(core, starter, client):
    core.broken = PoolBroken("it was")
    with pytest.raises(PoolBroken, match="it was"):
        starter.prestart(2, wait=False, timeout=None)
    assert (core.log, core.thread.started) == ([], False)


def test_the_first_to_ask_for_workers_starts_the_template_with_signals_blocked_and_others_do_not(
    core, starter, client
):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    core.template_wanted = True
    starter.prestart(2, wait=False, timeout=None)
    assert [set(mask) for _, mask, _ in client.started] == [before]
    assert signal.SIGTERM in client.blocked
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    assert core.thread.started
    core.template_wanted, seen = True, []
    core.resolutions = [lambda: seen.append((core.lock._is_owned(), signal.pthread_sigmask(signal.SIG_BLOCK, ())))]
    starter.prestart(2, wait=False, timeout=None)
    assert seen == [(False, before)]
    assert (len(client.started), core.template_wanted) == (1, True), "the pool thread starts all others"
