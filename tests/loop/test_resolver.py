"""What becomes of tasks when it is decided: who is told, what is counted and observed, and what is said of deaths."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from pidfdpool import DeadlineExceeded, PayloadTooLarge, TaskKilled
from pidfdpool.deaths import Cause
from pidfdpool.loop import outcomes
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.loop.death_reports import DeathReports, Evidence
from pidfdpool.loop.outcomes import Outcome
from pidfdpool.loop.resolutions import NO_BUFFERS, QUICK, Delivery, Resolver, deliver, is_quickly_rebuilt, set_aside
from pidfdpool.loop.task import Task
from pidfdpool.pidfd import ExitStatus
from pidfdpool.scheduler import actions as do
from pidfdpool.scheduler.policy import Policy
from pidfdpool.serialization import payload
from pidfdpool.serialization.picklers import STACK_GLOBAL
from pidfdpool.transport import framing
from pidfdpool.transport.published import Published
from tests.loop.test_parts import Recipient


class Future(Recipient):
    marked = 0

    def _mark_cancelled(self):
        self.marked += 1
        return True


class Observation:
    """Notes what it is told."""

    def __init__(self):
        self.log = []

    def note_end(self, task, error, *, cancelled=False):
        self.log.append(("end", task.number, type(error), cancelled))

    def note_retry(self, task, attempt, pause):
        self.log.append(("retry", task.number, attempt, pause))

    def note_death(self, death):
        self.log.append(("death", death))


def task(number=1, what="work", **options):
    return Task(number, Future(), payload.dumps(None), what, Policy(1, **{"timeout": 5, "deadline": 5} | options))


@pytest.fixture(params=[False, True], ids=["unobserved", "observed"])
def resolver(request):
    resolver = Resolver(DeathReports([], 5))
    resolver.observation = Observation() if request.param else None
    resolver.tasks[1] = task()
    return resolver


def act(resolver, action, context=None):
    return resolver.handlers[type(action)](action, context)


def observed(resolver, *expected):
    assert resolver.observation is None or resolver.observation.log == list(expected)


def outcome(number=1, value="value"):
    return Outcome(framing.Frame(framing.RESULT, 0, 0, number, payload.dumps(value)))


def counts(resolver):
    return resolver.finished, resolver.failed, resolver.cancelled, resolver.crashes


# ---- ends --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "kind", "counted"),
    [
        (do.Fail(1, Cause.KILL), TaskKilled, (0, 1, 0, 0)),
        (do.Expire(1), DeadlineExceeded, (0, 1, 0, 0)),
        (do.Deliver(1), str, (1, 0, 0, 0)),
    ],
    ids=["fail", "expire", "deliver"],
)
def test_an_end_is_counted_and_observed_when_it_is_decided_and_told_when_its_resolution_runs(
    resolver, action, kind, counted
):
    ended = resolver.tasks[1]
    resolution = act(resolver, action, outcome() if kind is str else None)
    assert counts(resolver) == counted
    observed(resolver, ("end", 1, type(None) if kind is str else kind, False))
    assert (resolver.tasks, resolver.undelivered, ended.future.told) == ({}, {1: ended}, [])
    assert ended.buffers is NO_BUFFERS, "its call is let go of"
    assert resolution.task is ended
    resolution()
    assert [type(told) for told in ended.future.told] == [kind]
    assert (resolver.undelivered, counts(resolver)) == ({}, counted)


def test_a_cancelled_task_is_seen_as_that_before_its_future_is_told(resolver):
    ended = resolver.tasks[1]
    resolution = act(resolver, do.Cancel(1))
    assert (ended.future.marked, ended.future.told) == (1, [])
    assert counts(resolver) == (0, 0, 1, 0)
    observed(resolver, ("end", 1, type(None), True))
    resolution()
    assert ended.future.told == ["cancelled"]


def test_another_attempt_is_logged_without_the_lock_and_observed_at_once(resolver, caplog):
    caplog.set_level(logging.INFO, "pidfdpool.tasks")
    resolution = act(resolver, do.Retry(1, 2, 0.125))
    observed(resolver, ("retry", 1, 2, 0.125))
    assert caplog.records == []
    resolution()
    [record] = caplog.records
    assert (record.levelno, record.name) == (logging.INFO, "pidfdpool.tasks")
    assert record.getMessage() == "task 1 (work) is tried again, attempt 2, after 0.125 s"
    assert 1 in resolver.tasks


# ---- deaths ------------------------------------------------------------------------------------------------------


def report(task=1, cause=Cause.CRASH, attempt=1):
    return do.ReportDeath(0, 7, 4711, cause, ExitStatus(signal=9), 1.0, 0, task=task, attempt=attempt)


def test_a_death_is_kept_with_its_task_and_told_when_its_resolution_runs(resolver):
    told = []
    resolver.deaths._subscribers.append(told.append)
    lost, evidence = resolver.tasks[1], Evidence(1 << 20, 0.5, ("a line",))
    first = act(resolver, report(), evidence)
    second = act(resolver, report(attempt=2), evidence)
    assert told == []
    first()
    second()
    assert lost.deaths == tuple(told), "in their order"
    assert [(death.task, death.task_id, death.attempt) for death in told] == [("work", 1, 1), ("work", 1, 2)]
    assert (told[0].peak_rss, told[0].stderr) == (1 << 20, ("a line",))
    assert resolver.crashes == 2
    observed(resolver, *(("death", death) for death in told))
    assert 1 in resolver.tasks, "what becomes of it is another action"


@pytest.mark.parametrize("number", [None, 99])
def test_a_death_without_a_task_that_is_known_is_nobodys(resolver, number):
    act(resolver, report(number, attempt=0))()
    [death] = resolver.deaths.recent
    assert (death.task, death.task_id) == (None, number)
    assert resolver.tasks[1].deaths == ()


@pytest.mark.parametrize(("cause", "crashes"), [(Cause.CRASH, 1), (Cause.TIMEOUT, 0), (Cause.IDLE, 0)])
def test_only_deaths_that_nobody_asked_for_are_crashes(resolver, cause, crashes):
    act(resolver, report(cause=cause))
    assert resolver.crashes == crashes


def test_without_evidence_a_death_is_told_all_the_same(resolver):
    act(resolver, report(), None)()
    assert resolver.tasks[1].deaths[0].stderr == ()


@pytest.mark.parametrize("own", [False, True])
def test_of_a_chunk_the_evidence_tells_which_call_was_under_way(resolver, own):
    chunk = Chunk(print, "work", 10, range(4), starred=False)
    resolver.tasks[1] = task(what=chunk)
    published = Published(1 if own else 2, 3, [1, 2], b"")
    act(resolver, report(), Evidence(marks=2, published=published))
    assert resolver.tasks[1].deaths[0].task == f"work, item {12 if own else 11} of map"
    assert (chunk.published is published) is own


# ---- a broken pool -----------------------------------------------------------------------------------------------


def test_what_broke_a_pool_is_the_cause_of_each_error_whatever_else_has_died(resolver):
    resolver.deaths.recent.append(SimpleNamespace(as_seen=lambda: "died"))
    resolver.cause = cause = LookupError("the initializer")
    for _ in range(2):
        error = resolver.broken_error("why")
        assert error.__cause__ is cause
        assert str(error) == "the pool is broken and runs no more tasks: why"
        assert error.deaths == tuple(resolver.deaths.recent)


def test_of_a_broken_pool_the_deaths_are_the_cause_each_with_what_was_seen(resolver):
    for text in ("one died", "another died"):
        resolver.deaths.recent.append(SimpleNamespace(as_seen=lambda text=text: text))
    cause = str(resolver.broken_error("why").__cause__)
    assert cause.index("one died") < cause.index("another died")


# ---- how a future is told ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "told"),
    [
        ((1, 0, 0, payload.NONE), None),
        ((1, 0, 0, payload.dumps("value")[0]), "value"),
        (framing.Frame(framing.RESULT, 0, 0, 1, payload.dumps("value")), "value"),
        (outcome(), "value"),
        (None, "cancelled"),
    ],
    ids=["lean none", "lean", "frame", "outcome", "cancelled"],
)
def test_a_future_is_told_once_and_until_then_its_task_is_found(verdict, told):
    undelivered, each, found = {}, task(), []
    set_aside(undelivered, each, verdict)
    assert (each.verdict, each.buffers, undelivered) == (verdict, [], {1: each})
    resolve = each.future._resolve
    each.future._resolve = lambda *given: found.append(1 in undelivered) or resolve(*given)
    delivery = Delivery(undelivered, each)
    delivery()
    delivery()
    assert each.future.told == [told]
    assert found == ([True] if told != "cancelled" else [])
    assert undelivered == {}


def test_what_is_raised_when_there_is_no_memory_for_the_error_is_what_the_future_gets(monkeypatch):
    def fail(_answer):
        raise MemoryError

    monkeypatch.setattr(outcomes, "load", fail)
    undelivered, each = {}, task()
    set_aside(undelivered, each, (1, 0, 0, payload.dumps("value")[0]))
    deliver(undelivered, each)
    assert [type(told) for told in each.future.told] == [MemoryError]


def test_an_error_of_the_pools_own_is_told_as_it_is():
    undelivered, each = {}, task()
    set_aside(undelivered, each, error := KeyError("no"))
    deliver(undelivered, each)
    assert each.future.told == [error]


@pytest.mark.parametrize(
    ("data", "quick"),
    [
        (b"x" * (QUICK - 1) + b".", True),
        (b"x" * QUICK + b".", False),
        (bytearray(b"\x80\x05N."), False),
        (b"\x80\x05N" + bytes([payload.HIGHEST_MARK]), False),
        (b"\x80\x05N" + bytes([payload.HIGHEST_MARK + 1]), True),
        (b"\x80\x05" + STACK_GLOBAL + b".", False),
    ],
    ids=["largest", "too large", "memory", "marked", "not marked", "names something"],
)
def test_what_calls_nothing_and_takes_no_time_is_quickly_rebuilt_in_whatever_form_it_came(data, quick):
    framed = framing.Frame(framing.RESULT, 0, 0, 1, [data])
    assert is_quickly_rebuilt((1, 0, 0, data)) is quick
    assert is_quickly_rebuilt(framed) is quick
    assert is_quickly_rebuilt(Outcome(framed)) is quick


@pytest.mark.parametrize("buffers", [[], [b"\x80\x05N.", b"\x80\x05N."]])
def test_what_has_no_buffer_or_several_or_is_an_error_is_not_quickly_rebuilt(buffers):
    assert not is_quickly_rebuilt(framing.Frame(framing.RESULT, 0, 0, 1, buffers))
    assert not is_quickly_rebuilt(framing.Frame(framing.ERROR, 0, 0, 1, [b"\x80\x05N."]))


# ---- rebuilding --------------------------------------------------------------------------------------------------


def test_an_exception_is_not_rebuilt_where_no_error_leads_to_another_attempt():
    """To rebuild it runs code of the user's, which is for the thread that tells the future."""
    made = Outcome(framing.Frame(framing.ERROR, 0, 0, 1, payload.dump_error(KeyError("no"), None)))
    assert made.matches(Policy(1)) is False
    assert made.error is None
    assert made.buffers


def test_what_there_is_no_memory_for_says_so_with_the_size_of_all_its_parts():
    class NoMemory(bytes):
        def __bytes__(self):
            raise MemoryError

    error = outcomes.load_error([b"x" * 1_000_000, NoMemory(b"x" * 1_000_000)])
    assert type(error) is PayloadTooLarge
    assert "to rebuild the exception of this task, which came in 2 MB" in str(error)
    unreadable = outcomes.unreadable_result(failure := MemoryError("no"))
    assert type(unreadable) is PayloadTooLarge
    assert unreadable.__cause__ is failure
