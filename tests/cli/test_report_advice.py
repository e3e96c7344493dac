"""The advice of a report: each rule at its threshold and beside it."""

from __future__ import annotations

import pytest

from pidfdpool.cli.report import advice
from pidfdpool.cli.report.analysis import Analysis, Death, Function, Tail, WorkerTime
from pidfdpool.cli.report.lives import Split


def numbers(**given):
    told = {
        "duration": 10.0, "tasks": 100, "calls": 100, "outcomes": {"done": 100}, "retried": 0, "unrun": {},
        "attempts": 100, "split": Split(0.5, 0.5, 9.0, 1.0), "functions": [], "slowest": [], "deaths": [],
        "starts": 2, "workers": [WorkerTime(f"worker {slot}", Split()) for slot in (0, 1)], "recycled": 0,
        "payload": 0, "median": 0.05,
    }  # fmt: skip
    return Analysis(**{**told, **given})


def function(name, total):
    return Function(name, 1, 1, 0, total, total, total, total, (1,))


def death(how="SIGKILL", **given):
    told = {"expected": False, "asked": False, **given}
    return Death(1.0, "worker 0", 7, "text", "reason", how, **told)


def observed(found):
    return [each.observed for each in found]


def test_nothing_is_said_where_there_is_nothing_to_say():
    assert advice.advise(numbers()) == []
    assert advice.advise(numbers(attempts=0, tasks=0, calls=0, outcomes={}, split=Split(), duration=0.0)) == []


def test_all_rules_are_asked():
    found = advice.advise(
        numbers(
            split=Split(2.0, 6.2, 1.0, 0.8),
            outcomes={"done": 90, "timed out": 10},
            deaths=[death(), death("SIGSEGV"), death(memory_first=5e7, memory_last=5e8)],
            retried=10,
            payload=800_000_000,
            functions=[function("a:f", 95.0), function("a:g", 5.0)],
            tail=Tail(5.0, 0.5, "a:f", 3),
        )
    )
    rules = [rule for rule in advice.RULES if rule is not advice.idling]
    assert len(found) == len(rules)


@pytest.mark.parametrize(("wait", "said"), [(2.0, True), (1.99, False)])
def test_workers_that_wait(wait, said):
    split = Split(0.0, wait, 10.0 - wait, 0.0)
    assert bool(advice.waiting(numbers(split=split))) is said


@pytest.mark.parametrize(("scale", "said"), [(1.0, True), (0.99, False)])
def test_waits_that_cost_nothing_are_not_worth_a_sentence(scale, said):
    split = Split(0.0, 0.1 * scale, 0.1 * scale, 0.0)
    assert bool(advice.waiting(numbers(split=split))) is said


@pytest.mark.parametrize(("median", "word"), [(0.00999, "chunk"), (0.01, "smaller arguments")])
def test_what_helps_against_waits_depends_on_how_long_tasks_take(median, word):
    [found] = advice.waiting(numbers(split=Split(0.0, 6.2, 3.8, 0.0), median=median))
    assert found.observed.startswith("Workers waited 62 % of their time for the host")
    assert word in found.suggestion


@pytest.mark.parametrize(("start", "said"), [(2.0, True), (1.99, False)])
def test_start_up(start, said):
    found = advice.starting(numbers(split=Split(start, 0.0, 10.0 - start, 0.0)))
    assert observed(found) == (["Start-up took 20 % of the workers' time."] if said else [])


@pytest.mark.parametrize(("starts", "word"), [(7, "max_tasks_per_child="), (6, "get_shared_executor()")])
def test_what_helps_against_starts_depends_on_how_many_there_are(starts, word):
    [found] = advice.starting(numbers(split=Split(4.0, 0.0, 6.0, 0.0), starts=starts))
    assert word in found.suggestion


@pytest.mark.parametrize(("payload", "said"), [(500_000_000, True), (499_000_000, False)])
def test_payloads(payload, said):
    found = advice.payloads(numbers(payload=payload))
    assert observed(found) == (
        ["Payloads of 50 MB per second went between host and workers, 500 MB in all."] if said else []
    )


@pytest.mark.parametrize(("payload", "said"), [(10_000_000, True), (9_999_999, False)])
def test_a_rate_of_payloads_counts_only_if_there_were_many(payload, said):
    assert bool(advice.payloads(numbers(payload=payload, duration=0.01))) is said


@pytest.mark.parametrize(("first", "said"), [(0.9, True), (0.899, False)])
def test_a_function_that_has_nearly_all_of_the_work(first, said):
    found = advice.dominant(numbers(functions=[function("a:f", first), function("a:g", 1 - first)]))
    assert observed(found) == (["One function, a:f, has 90 % of the work."] if said else [])


def test_the_only_function_is_no_news():
    assert advice.dominant(numbers(functions=[function("a:f", 5.0)])) == []


@pytest.mark.parametrize(("share", "seconds", "said"), [(0.2, 0.1, True), (0.199, 0.1, False), (0.2, 0.099, False)])
def test_one_worker_that_is_left_at_the_end(share, seconds, said):
    found = advice.tail(numbers(tail=Tail(seconds, share, "a:f", 99)))
    assert bool(found) is said
    if said:
        assert found[0].observed.startswith("For the last 100 ms, 20 % of the time, one worker ran task 99 (a:f)")


@pytest.mark.parametrize(("idle", "said"), [(5.0, True), (4.99, False)])
def test_workers_with_nothing_to_do(idle, said):
    found = advice.idling(numbers(split=Split(0.0, 0.0, 10.0 - idle, idle)))
    assert observed(found) == (["Workers were idle 50 % of their time: nothing was queued."] if said else [])


def test_the_tail_is_told_once():
    split = Split(0.0, 0.0, 4.0, 6.0)
    assert advice.idling(numbers(split=split, tail=Tail(5.0, 0.5, "a:f", 1))) == []


@pytest.mark.parametrize(("retried", "said"), [(5, True), (4, False)])
def test_attempts_that_were_for_nothing(retried, said):
    found = advice.retries(numbers(retried=retried))
    assert observed(found) == (["5 % of the attempts (5 of 100) failed and were made again."] if said else [])


@pytest.mark.parametrize(("number", "said"), [(1, ["1 task of 100 timed out."]), (0, [])])
def test_timeouts(number, said):
    assert observed(advice.timeouts(numbers(outcomes={"timed out": number}))) == said


GROWN = "3 workers died of SIGKILL after their memory had risen, up to 192 MB."


@pytest.mark.parametrize(
    ("first", "last", "grown"),
    [(128e6, 192e6, True), (128e6, 191e6, False), (130e6, 194e6, False), (192e6, 128e6, False), (None, None, False)],
)
def test_workers_that_died_with_much_memory(first, last, grown):
    told = numbers(deaths=[death(memory_first=first, memory_last=last)] * 3)
    assert observed(advice.memory_deaths(told)) == ([GROWN] if grown else [])
    others = ["3 workers died of SIGKILL that the pool did not send."]
    assert observed(advice.kills_from_outside(told)) == ([] if grown else others)


def test_deaths_that_the_pool_wanted_are_no_news():
    for given in ({"expected": True}, {"asked": True}):
        for how in ("SIGKILL", "SIGTERM", "exit code 0"):
            assert advice.advise(numbers(deaths=[death(how, **given)])) == []


def test_crashes_are_counted_by_how():
    deaths = [death("SIGSEGV"), death("exit code 3"), death("SIGSEGV"), death("")]
    assert observed(advice.crashes(numbers(deaths=deaths))) == [
        "2 workers died of SIGSEGV.",
        "1 worker left by itself, with exit code 3.",
    ]


@pytest.mark.parametrize(("how", "word"), [("SIGSEGV", "native code"), ("SIGTERM", "another process")])
def test_what_a_signal_says(how, word):
    [found] = advice.crashes(numbers(deaths=[death(how)]))
    assert word in found.suggestion
