"""The records of deaths."""

from __future__ import annotations

import logging
import sys
import time

import pytest

from pidfdpool.deaths import Cause
from pidfdpool.loop.death_reports import DeathReports, Evidence, subscribe
from pidfdpool.pidfd import ExitStatus
from pidfdpool.scheduler.actions import ReportDeath


class Counters:
    """The memory's counters: the first time that they are read, somebody was killed since."""

    readable = True

    def __init__(self):
        self._rises = [{"oom_kill": 1}]

    def risen(self):
        return self._rises.pop() if self._rises else {}


def test_what_the_kernel_has_killed_is_told_of_one_death():
    witness = DeathReports([], remembered=5)
    witness._memory = Counters()
    report = ReportDeath(0, 1, 4711, Cause.CRASH, ExitStatus.from_wait_status(9), 1.0, 0)
    deaths = [witness.record(report, Evidence(), None) for _ in range(2)]
    assert [death.oom_kills for death in deaths] == [1, 0]
    assert [death.memory_events for death in deaths] == [{"oom_kill": 1}, {}]


def report(cause=Cause.CRASH, **options):
    return ReportDeath(0, 1, 4711, cause, ExitStatus.from_wait_status(9), 1.0, 3, **options)


def test_a_record_has_what_was_decided_and_what_was_found():
    reports = DeathReports([], remembered=5)
    reports._memory = Counters()
    evidence = Evidence(peak_rss=5, cpu_time=0.5, stderr=("a line",), stack="a stack")
    death = reports.record(report(task=9, attempt=2, detail="why"), evidence, "work")
    assert (death.slot, death.generation, death.pid, death.uptime, death.tasks_done) == (0, 1, 4711, 1.0, 3)
    assert (death.task, death.task_id, death.attempt, death.detail) == ("work", 9, 2, "why")
    assert (death.peak_rss, death.cpu_time, death.stderr, death.stack) == (5, 0.5, ("a line",), "a stack")
    assert death.oom_kills == 1
    assert time.time() - 60 < death.ended_at <= time.time()


def test_counters_are_read_when_the_worker_has_ended_and_count_for_its_record():
    reports = DeathReports([], remembered=5)
    reports._memory = Counters()
    reports.read_memory_events()
    reports.read_memory_events()
    assert reports.record(report(), Evidence(), None).oom_kills == 1


def test_where_there_are_no_counters_it_is_not_known():
    reports = DeathReports([], remembered=5)
    reports._memory = Counters()
    reports._memory.readable = False
    assert reports.record(report(), Evidence(), None).oom_kills is None


@pytest.mark.parametrize("cause", Cause)
def test_errors_tell_of_deaths_that_nobody_asked_for_and_of_those_that_something_is_wrong_with(cause):
    reports = DeathReports([], remembered=2)
    deaths = [reports.record(report(cause), Evidence(), None) for _ in range(3)]
    told = cause.unasked or cause in (Cause.START, Cause.TEMPLATE, Cause.BABBLE, Cause.HUNG_UP)
    assert list(reports.recent) == (deaths[1:] if told else [])


@pytest.mark.parametrize(("cause", "level"), [(Cause.CRASH, logging.WARNING), (Cause.IDLE, logging.DEBUG)])
def test_a_death_is_logged_and_told_to_all_whatever_one_of_them_raises(cause, level, caplog):
    told, subscribers = [], []
    leave = subscribe(subscribers, told.append)
    subscribe(subscribers, lambda _death: sys.exit(1))
    subscribe(subscribers, told.append)
    reports = DeathReports(subscribers, remembered=5)
    death = reports.record(report(cause), Evidence(), None)
    with caplog.at_level(logging.DEBUG, "pidfdpool.deaths"):
        reports.publish(death)
        leave()
        leave()
        reports.publish(death)
    assert told == [death] * 3
    assert [record.levelno for record in caplog.records] == [level, logging.ERROR] * 2
    assert caplog.records[0].death is death


def test_only_what_can_be_called_can_subscribe():
    with pytest.raises(TypeError, match="callback must be a callable, not 5"):
        subscribe([], 5)
