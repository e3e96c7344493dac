"""Young deaths and failed starts, counted alone."""

from __future__ import annotations

import pytest

from pidfdpool.scheduler.policy import Policy
from pidfdpool.scheduler.restart_limits import RestartLimiter


def limiter(workers: int = 1, **policy) -> RestartLimiter:
    return RestartLimiter(Policy(workers, **policy))


def test_pauses_double_up_to_their_limit_and_start_again_after_a_task():
    limits = limiter(backoff=0.1, backoff_limit=0.3)
    pauses = []
    for now in (10.0, 20.0, 30.0, 40.0):
        assert limits.young_death("killed", now) is None
        pauses.append(limits.not_before - now)
    limits.task_finished()
    limits.young_death("killed", 50.0)
    assert [*pauses, limits.not_before - 50.0] == pytest.approx([0.1, 0.2, 0.3, 0.3, 0.1])


def test_too_many_within_the_period_break_the_pool_and_fewer_do_not():
    limits = limiter(intensity=2, period=10.0)
    assert [limits.young_death("killed", now) for now in (0.0, 1.0, 11.5)] == [None, None, None]
    assert limits.young_death("signal 9", 11.6) is None
    assert limits.young_death("signal 9", 11.7) == (
        "3 processes died within 10 s before any of them finished a task; the last: signal 9"
    )


def test_without_an_intensity_eight_rounds_in_a_row_break_the_pool():
    limits = limiter(500, backoff_limit=1.0)
    for round_ in range(7):
        for _ in range(20 if round_ < 5 else 1):  # those of one round count once
            assert limits.young_death("killed", 100.0 * round_) is None
    assert "died 8 times in a row" in limits.young_death("killed", 700.0)


def test_a_failed_start_that_is_not_fatal_only_delays_the_next():
    limits = limiter(intensity=0)
    for now in range(100):
        assert limits.failed_start("no", float(now), fatal=False, any_running=True) is None
    assert limits.not_before > 99.0


def test_a_period_in_which_nothing_starts_breaks_the_pool_unless_something_started_in_between():
    limits = limiter(500, period=30.0)
    assert limits.failed_start("no", 0.0, fatal=False, any_running=False) is None
    limits.worker_started()
    assert limits.failed_start("no", 29.0, fatal=False, any_running=False) is None
    assert limits.failed_start("no", 31.0, fatal=False, any_running=False) is None
    told = limits.failed_start("no processes", 59.0, fatal=False, any_running=False)
    assert told == "no process could be started for 30 s; the last: no processes"
