"""What users may pass as a time or a size: numbers of every kind, as long as something can count them."""

from __future__ import annotations

import datetime
import decimal
import fractions
import math
import sys

import pytest

from pidfdpool import Policy, checks

TIMES = [
    *("timeout", "grace", "deadline", "retry_backoff", "retry_backoff_limit", "heartbeat_timeout", "memory_interval"),
    *("max_age", "idle_timeout", "young_age", "period", "backoff", "backoff_limit", "start_timeout"),
    *("spawn_timeout", "stop_grace", "prefetch", "spin"),
]
SIZES = [
    *("retries", "poison_after", "priority", "max_tasks_per_child", "max_memory_per_child", "hard_memory_per_child"),
    *("min_workers", "max_pending", "segment_memory", "intensity", "threads_per_worker"),
]
TOO_LONG = {"infinity": math.inf, "no number": math.nan, "no float": 10**400, "more digits than text has": 10**5000}


def test_every_option_that_is_a_number_is_looked_at_here():
    others = {"retry_on", "cancel_kills", "kill_descendants", "block", "on_crash", "capture_stderr", "max_workers"}
    assert {*TIMES, *SIZES, *others, "sends_ahead"} == set(Policy.__slots__)


def _policy(name, value):
    limits = {"retry_backoff": "retry_backoff_limit", "backoff": "backoff_limit"}
    return Policy(8, **{name: value}, **({limits[name]: 1e308} if name in limits else {}))


def test_a_time_may_be_a_number_of_any_kind_and_what_comes_out_is_a_plain_one():
    numpy = pytest.importorskip("numpy")
    kinds = (fractions.Fraction(5, 2), decimal.Decimal("2.5"), numpy.float32(2.5), numpy.float16(2.5))
    for name in TIMES:
        if name in ("retry_backoff_limit", "backoff_limit"):
            continue
        for value in kinds:
            found = getattr(_policy(name, value), name)
            assert (found, type(found)) == (2.5, float), (name, value)
        assert type(getattr(_policy(name, numpy.int64(3)), name)) is float, name
        assert type(getattr(_policy(name, 3), name)) is int, name
    for name in SIZES:
        found = getattr(_policy(name, numpy.int16(2)), name)
        assert (found, type(found)) == (2, int), name


def test_what_no_clock_can_count_is_refused_with_name_and_value():
    for name in TIMES:
        for value in TOO_LONG.values():
            with pytest.raises(ValueError, match=f"^{name} must be a number of seconds.*, not ") as raised:
                Policy(8, **{name: value})
            assert len(str(raised.value)) < 400
        for wrong in ("5", True, 1j, datetime.timedelta(seconds=5), [5]):
            with pytest.raises(TypeError, match=f"^{name} must be a number of seconds.*, not "):
                Policy(8, **{name: wrong})
    with pytest.raises(TypeError, match=r"timeout.*timedelta.*total_seconds\(\)"):
        Policy(8, timeout=datetime.timedelta(seconds=5))


def test_a_size_that_no_computer_has_is_refused_with_name_and_value():
    for name in SIZES:
        for value in (2**63, 10**5000):
            with pytest.raises(ValueError, match=f"^{name} must be <= 9223372036854775807, not "):
                Policy(8, **{name: value})
        if name != "min_workers":
            assert getattr(Policy(8, **{name: sys.maxsize}), name) == sys.maxsize


class Unspeakable:
    """What has no text of its own."""

    def __repr__(self):
        raise RuntimeError("no")


def test_a_value_without_text_does_not_hide_what_is_wrong():
    with pytest.raises(TypeError, match=r"timeout must be a number of seconds, .* not <Unspeakable"):
        Policy(8, timeout=Unspeakable())
    with pytest.raises(TypeError, match="retries must be an integer, not <Unspeakable"):
        Policy(8, retries=Unspeakable())
    with pytest.raises(ValueError, match="on_crash must be .* not <Unspeakable"):
        Policy(8, on_crash=Unspeakable())


def test_to_wait_is_possible_for_any_number_of_seconds():
    assert checks.wait_time("timeout", None) is None
    for never in (math.inf, 1e300, 10**400, 10**10, decimal.Decimal("Infinity")):
        assert checks.wait_time("timeout", never) is None, "longer than anybody waits"
    assert checks.wait_time("timeout", fractions.Fraction(1, 2)) == 0.5
    assert checks.wait_time("timeout", True) == 1, "as in the standard library"
    assert checks.wait_time("timeout", -math.inf) < 0
    for wrong in (math.nan, decimal.Decimal("sNaN")):
        with pytest.raises(ValueError, match="timeout must be a number of seconds, or None, not"):
            checks.wait_time("timeout", wrong)
    for wrong in ("5", 5j, datetime.timedelta(seconds=5)):
        with pytest.raises(TypeError, match="timeout must be a number of seconds, or None, not"):
            checks.wait_time("timeout", wrong)
