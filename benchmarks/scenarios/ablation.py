"""The pool with one trick left out at a time: a few scenarios of the others, gone through by ours alone."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.contenders import LEFT_OUT, OURS
from benchmarks.scenario import Group, Scenario
from benchmarks.scenarios import bounds, cancelling, hosts, latency, lives, many, mapping, payloads, throughput
from benchmarks.tricks import TRICKS, Trick

_KNOWN = {
    scenario.name: scenario
    for group in (
        throughput.THROUGHPUT, latency.LATENCY, hosts.BUSY, hosts.ASYNCIO, mapping.SKEWED, mapping.MAPS,
        bounds.AHEAD, bounds.TIMED, cancelling.CANCEL, lives.START, many.MANY, *payloads.ECHO, *payloads.ONE_WAY,
    )
    for scenario in group.scenarios
}  # fmt: skip


def of_trick(trick: Trick) -> str:
    """Return the name of the pool without that trick."""
    return f"without-{trick.name}"


def _who(name: str) -> tuple[str, ...]:
    """Return who goes through a scenario: the pool without each of the tricks that it shows, and those with them."""
    shown = [trick for trick in TRICKS if name in trick.shown_by]
    return tuple(dict.fromkeys([trick.beside for trick in shown] + [of_trick(trick) for trick in shown]))


def _again(of: str, name: str, title: str, *metrics: str, quick: bool = False) -> Scenario:
    """Return a scenario under another name, with some of its figures; what it measures is the same."""
    scenario = _KNOWN[of]
    kept = tuple(metric for metric in scenario.metrics if metric.key in metrics)
    assert len(kept) == len(metrics)
    return replace(
        scenario,
        name=f"trick-{name}",
        title=title,
        metrics=kept,
        quick=quick,
        at=None,
        rounds=None,
        contenders=_who(name),
    )


ABLATION = Group(
    "tricks",
    "Each trick left out",
    "pidfdpool with one of its tricks left out at a time, and complete, in those scenarios of the tables above in "
    "which the trick matters. 2 workers; 1 beside a host that computes; 1,000 where their "
    "start is measured. Worth: how many times as good the complete pool is. What only template and workers do can be "
    "left out in the fork way only. Without shared memory: both are as while that is used up. Without tasks "
    "ahead nothing is taken back, answers come one by one, and only waiting tasks have a short way.",
    (
        # What differs little takes longer to tell, so it is not submit-2.
        _again("submit-40k", "throughput", "40,000 tiny tasks", "rate", "cpu", quick=True),
        _again("latency-steady", "latency", "one at a time", "p50"),
        _again("busy-50us", "busy", "computing host, 50 µs", "share"),
        _again("asyncio-native", "asyncio", "asyncio, pool.run", "burst", "steady"),
        _again("skewed-submit", "unequal", "unequal tasks by submit", "makespan"),
        _again("skewed-map", "unequal-map", "unequal tasks by map", "makespan"),
        _again("map-100k", "map", "map(abs), 100,000", "rate"),
        _again("bounded-1000", "bounded", "map, 1,000 inputs ahead", "rate"),
        _again("timed-map", "timed", "map with a timeout", "rate"),
        _again("cancel-200k", "cancel", "200,000 cancelled one by one", "each"),
        _again("drop-200k", "drop", "200,000 cancelled by shutdown", "returned"),
        _again("echo-bytes-64kb", "echo-small", "64 KB there and back", "rate"),
        _again("echo-bytes-1mb", "echo", "1 MB there and back", "rate"),
        _again("argument-16mb", "argument", "16 MB as an argument", "rate"),
        _again("result-16mb", "result", "16 MB as a result", "rate"),
        _again("first-result", "start", "the first result", "first", "submitted"),
        _again("many-1000", "many", "1,000 workers", "ready"),
    ),
    contenders=(OURS, "ours-fork", *LEFT_OUT),
    baseline=OURS,
)
