"""The starts of templates and of the pool thread, with a pool of fakes: who makes them, and what failures lead to."""

from __future__ import annotations

import errno
import threading
from types import SimpleNamespace

import pytest

from pidfdpool import TemplateError
from pidfdpool.loop import template_starter
from pidfdpool.loop.template_events import TemplateEvents
from pidfdpool.loop.template_starter import TemplateStarter
from pidfdpool.loop.worker_events import WorkerEvents
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.states import Template
from tests.loop.test_thread_parts import Core, Thread


@pytest.fixture
def core():
    return Core()


@pytest.fixture
def template_events(core):
    return TemplateEvents(core, WorkerEvents(core))


def start_by(monkeypatch, start):
    monkeypatch.setattr(template_starter.client, "start", start)


def refuse(error):
    def start(recipe, mask, *, by_interpreter):
        raise error

    return start


def test_only_one_thread_makes_the_first_start_and_the_others_wait_until_it_is_over(core):
    starter = TemplateStarter(core, None)
    assert (starter.claim_first(), starter.claim_first()) == (True, False)
    over = []
    other = threading.Thread(target=lambda: (starter.wait_for_first(), over.append(core.thread.started)))
    other.start()
    starter.wait_for_first()  # its own start is not waited for
    assert over == []
    starter.run_first(lambda: True, None)
    other.join(30)
    assert over == [True]
    assert not starter.claim_first(), "the thread is there"


def test_nothing_is_started_that_the_machine_has_not_asked_for_and_nothing_twice(core, monkeypatch):
    start_by(monkeypatch, refuse(OSError(errno.EAGAIN, "not now")))
    starter = TemplateStarter(core, None)
    starter.start_if_wanted()
    assert core.events == []
    core.template_wanted = True
    starter.start_if_wanted()
    starter.start_if_wanted()
    assert core.events == [ev.TemplateLost("it could not be started: [Errno 11] not now")]


def test_a_start_that_fails_for_good_is_not_tried_again_and_says_what_helps(core, monkeypatch):
    start_by(monkeypatch, refuse(FileNotFoundError(errno.ENOENT, "no such file")))
    core.template_wanted = True
    TemplateStarter(core, None).start_if_wanted()
    assert [type(each) for each in core.events] == [ev.TemplateUnusable]
    assert "mp_context='fork'" in core.events[0].reason
    assert type(core.resolver.cause) is FileNotFoundError


def test_a_first_start_that_a_handler_interrupts_leaves_a_pool_that_goes_on_without_its_task(
    core, template_events, monkeypatch
):
    start_by(monkeypatch, refuse(KeyboardInterrupt()))
    core.template_wanted = True
    starter = TemplateStarter(core, template_events)
    assert starter.claim_first()
    with pytest.raises(KeyboardInterrupt):
        starter.start_first(3, None)
    assert core.events == [ev.TemplateLost("its start was interrupted"), ev.Cancelled(3)]
    assert core.thread.started


def test_where_there_can_be_no_thread_every_task_fails_and_the_next_submit_tries_again(core):
    core.thread = Thread(refused=True)
    core.tasks = {1: None, 2: None}
    starter = TemplateStarter(core, None)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        starter.run_first(starter.claim_first, 2)
    assert core.log[:2] == ["task 1 fails", "task 2 fails"]
    assert (starter.stillborn, core.closed) == (True, True)
    assert starter.claim_first()


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("claims", [False, True])
def test_a_pool_whose_first_start_is_interrupted_before_it_has_a_thread_ends_and_fails_its_tasks(core, claims):
    """Its signals are blocked, but a handler runs in the main thread for a signal that another thread has taken."""
    starter = TemplateStarter(core, None)
    core.template_wanted, core.tasks = True, {1: None, 2: None}

    def ask():
        assert not claims or starter.claim_first()
        interrupt()

    with pytest.raises(KeyboardInterrupt):
        starter.run_first(ask, 2)
    assert core.log[:2] == ["task 1 fails", "task 2 fails"]
    assert (starter.stillborn, core.closed, core.thread.prevented) == (True, True, True)
    assert not starter.is_starting


def test_a_pool_from_which_nothing_is_wanted_yet_goes_on_after_an_interruption(core):
    core.machine.template = Template.DOWN
    starter = TemplateStarter(core, None)
    with pytest.raises(KeyboardInterrupt):
        starter.run_first(interrupt, None)
    assert (starter.stillborn, core.closed, core.thread.prevented) == (False, False, False)
    starter.run_first(starter.claim_first, None)
    assert core.thread.started


def test_a_pool_that_has_its_thread_goes_on_after_an_interruption(core):
    starter = TemplateStarter(core, None)

    def ask():
        starter.start_first(None, None)
        interrupt()

    with pytest.raises(KeyboardInterrupt):
        starter.run_first(ask, None)
    assert (starter.stillborn, core.closed, core.thread.started) == (False, False, True)


def test_a_pool_that_another_thread_is_starting_goes_on_after_an_interruption(core):
    starter = TemplateStarter(core, None)

    def ask():
        other = threading.Thread(target=starter.claim_first)
        other.start()
        other.join()
        interrupt()

    with pytest.raises(KeyboardInterrupt):
        starter.run_first(ask, None)
    assert (starter.stillborn, core.closed, starter.starts_elsewhere) == (False, False, True)


def test_what_the_pool_refuses_is_no_interruption(core):
    starter = TemplateStarter(core, None)
    core.template_wanted = True

    def ask():
        raise RuntimeError("cannot schedule new futures after shutdown")

    with pytest.raises(RuntimeError, match="after shutdown"):
        starter.run_first(ask, None)
    assert (starter.stillborn, core.closed) == (False, False)


class Started:
    """Stands for the link to a template that was started."""

    def __init__(self, end, poller):
        self.end, self.script_wanted = end, 0

    def want_script(self):
        self.script_wanted += 1


@pytest.mark.parametrize("awaited", [None, "a launcher"])
@pytest.mark.parametrize("wanted", [False, True])
def test_a_template_is_told_of_the_script_if_somebody_has_come_to_need_it_during_the_start(
    core, monkeypatch, wanted, awaited
):
    """Guards: it had not been told at its start, and its workers had none of the script's globals."""

    def start(recipe, mask, *, by_interpreter):
        recipe.runs_script = wanted  # by a thread that submits meanwhile
        return SimpleNamespace(awaited=awaited)

    start_by(monkeypatch, start)
    monkeypatch.setattr(template_starter, "TemplateLink", Started)
    for name in ("reap_launcher", "finish"):
        monkeypatch.setattr(template_starter.client, name, lambda *_, name=name: core.log.append(name))
    watched = SimpleNamespace(
        watch=lambda _link: core.log.append("watch"), watch_exit=lambda _link: core.log.append("watch exit")
    )
    core.template_wanted = True
    TemplateStarter(core, watched).start_if_wanted()
    assert core.template.script_wanted == wanted
    expected = ["watch", ev.TemplateUp(), "reap_launcher"]
    if awaited is None:
        expected.insert(1, "watch exit")
    else:
        expected += ["finish", "watch exit"]
    assert core.log == expected


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (template_starter.client.EndedEarly("it ended"), ev.TemplateLost("it ended", starts_otherwise=True)),
        (TemplateError("it stayed silent"), ev.TemplateUnusable("the template cannot be started: it stayed silent")),
        (OSError(errno.EMFILE, "no more"), ev.TemplateLost("it could not be started: [Errno 24] no more")),
    ],
    ids=["ended early", "silent", "refused"],
)
def test_a_template_that_never_says_hello_is_lost_and_the_next_is_started_by_an_interpreter(
    core, monkeypatch, error, event
):
    ways, lost, first = [], [], ValueError("an earlier cause")

    def start(recipe, mask, *, by_interpreter):
        ways.append(by_interpreter)
        return SimpleNamespace(awaited="a launcher")

    def fail(_end):
        raise error

    start_by(monkeypatch, start)
    monkeypatch.setattr(template_starter, "TemplateLink", Started)
    monkeypatch.setattr(template_starter.client, "reap_launcher", lambda *_: None)
    monkeypatch.setattr(template_starter.client, "finish", fail)
    core.resolver.cause = first
    starter = TemplateStarter(core, SimpleNamespace(watch=lambda _link: None, lose=lost.append))
    for _ in range(2):
        core.template_wanted = True
        starter.start_if_wanted()
    assert ways == [False, True]
    assert lost == [event] * 2
    assert core.resolver.cause is (error if type(error) is TemplateError else first)


def test_workers_that_a_signal_handler_wants_during_a_decision_are_asked_for_later(core):
    core.thread.start()
    core.is_reentered = core.is_at_work_here = True
    assert TemplateStarter(core, None).prestart(2, wait=True, timeout=None) == 0
    assert core.log == [("deferred", ev.PrestartRequested(2))]
