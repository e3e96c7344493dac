"""The records of deaths."""

from __future__ import annotations

from pidfdpool.deaths import Cause
from pidfdpool.loop.death_reports import DeathReports, Evidence
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
