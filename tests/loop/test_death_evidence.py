"""What a record of a death takes from where, what is remembered, and how subscribers come and go."""

from __future__ import annotations

import logging

import pytest

from pidfdpool.deaths import Cause, Death
from pidfdpool.loop import death_reports
from pidfdpool.loop.death_reports import MOST_IN_ERRORS, DeathReports, Evidence, subscribe
from pidfdpool.pidfd import ExitStatus
from pidfdpool.scheduler.actions import ReportDeath

STATUS = ExitStatus.from_wait_status(11)


class Counters:
    readable = True

    def __init__(self, *rises):
        self.rises, self.reads = list(rises), 0

    def risen(self):
        self.reads += 1
        return self.rises.pop(0) if self.rises else {}


def reports(*rises, subscribers=(), remembered=5):
    made = DeathReports(list(subscribers), remembered)
    made._memory = Counters(*rises)
    return made


def report(cause=Cause.CRASH):
    return ReportDeath(2, 7, 4711, cause, STATUS, 1.5, 3, task=9, attempt=2, detail="why")


def test_every_field_of_a_record_comes_from_its_own_place():
    evidence = Evidence(peak_rss=5 << 20, cpu_time=0.5, stderr=("a", "b"), stack="a stack", marks=4)
    death = reports({"max": 2, "oom_kill": 3}).record(report(), evidence, "work")
    assert death == Death(
        slot=2, generation=7, pid=4711, cause=Cause.CRASH, exit_status=STATUS, uptime=1.5, tasks_done=3, task="work",
        task_id=9, attempt=2, peak_rss=5 << 20, cpu_time=0.5, oom_kills=3, memory_events={"max": 2, "oom_kill": 3},
        stderr=("a", "b"), stack="a stack", detail="why", ended_at=death.ended_at,
    )  # fmt: skip


def test_nothing_is_known_of_a_worker_that_left_nothing():
    assert Evidence() == Evidence(peak_rss=None, cpu_time=None, stderr=(), stack=None, marks=0, published=None)
    death = reports().record(report(), Evidence(), None)
    assert (death.peak_rss, death.cpu_time, death.stderr, death.stack, death.task) == (None, None, (), None, None)
    assert (death.oom_kills, death.memory_events) == (0, {})


def test_evidence_cannot_be_changed():
    with pytest.raises(AttributeError):
        Evidence().marks = 1


def test_counters_are_read_once_for_each_record_however_often_somebody_looks():
    made = reports({}, {"oom_kill": 1}, {"oom_kill": 2})
    made.read_memory_events()
    made.read_memory_events()
    assert made._memory.reads == 1
    assert made.record(report(), Evidence(), None).oom_kills == 0, "as they were when the worker ended"
    assert made._memory.reads == 1
    assert [made.record(report(), Evidence(), None).oom_kills for _ in range(3)] == [1, 2, 0]


def test_so_many_deaths_are_remembered_and_no_more():
    made = reports(remembered=2)
    deaths = [made.record(report(), Evidence(), None) for _ in range(4)]
    assert list(made.recent) == deaths[2:]
    assert 100 <= MOST_IN_ERRORS <= 10_000


def test_what_a_subscriber_raises_is_told_with_the_subscriber_and_the_worker(caplog):
    def fail(_death):
        raise ZeroDivisionError

    made = reports(subscribers=[fail])
    with caplog.at_level(logging.ERROR, "pidfdpool.deaths"):
        made.publish(made.record(report(), Evidence(), None))
    [told] = caplog.records
    assert told.getMessage() == f"exception calling {fail!r} for the death of worker 2"
    assert told.exc_info[0] is ZeroDivisionError


def test_a_subscriber_that_leaves_while_it_is_told_keeps_nobody_from_being_told():
    told, subscribers = [], []
    leave = subscribe(subscribers, lambda _death: (told.append("first"), leave()))
    subscribe(subscribers, lambda _death: told.append("second"))
    made = DeathReports(subscribers, 5)
    death = made.record(report(), Evidence(), None)
    made.publish(death)
    made.publish(death)
    assert told == ["first", "second", "second"]


def test_one_that_has_subscribed_twice_leaves_once_at_a_time():
    told, subscribers = [], []

    class Same:
        """Equal to everything."""

        __hash__ = None

        def __eq__(self, other):
            raise AssertionError("nobody asks it")

        def __call__(self, value):
            told.append(value)

    one = Same()
    leave = [subscribe(subscribers, one) for _ in range(2)]
    leave[1]()
    leave[1]()
    for each in subscribers:
        each(1)
    assert told == [1]
    leave[0]()
    assert subscribers == []


def test_a_program_that_has_set_up_no_logging_finds_no_deaths_on_its_standard_error():
    handlers = logging.getLogger("pidfdpool.deaths").handlers
    assert [type(each) for each in handlers].count(logging.NullHandler) == 1
    assert death_reports._log.name == "pidfdpool.deaths"
