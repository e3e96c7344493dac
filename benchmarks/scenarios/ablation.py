"""The pool with one trick left out at a time: a few scenarios of the others, gone through by ours alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmarks.contenders import LEFT_OUT, OURS
from benchmarks.scenario import Group, Scenario
from benchmarks.scenarios import hosts, latency, lives, mapping, payloads, throughput
from benchmarks.scenarios.common import WORKERS

_TINY = 40_000
_KNOWN = {
    scenario.name: scenario
    for group in (
        throughput.THROUGHPUT, latency.LATENCY, hosts.BUSY, hosts.ASYNCIO, mapping.SKEWED, mapping.MAPS,
        *payloads.ECHO, lives.START,
    )
    for scenario in group.scenarios
}  # fmt: skip


def _again(of: str, name: str, title: str, *metrics: str, quick: bool = False) -> Scenario:
    """Return a scenario under another name, with some of its figures; what it measures is the same."""
    scenario = _KNOWN[of]
    kept = tuple(metric for metric in scenario.metrics if metric.key in metrics)
    assert len(kept) == len(metrics)
    return replace(scenario, name=f"trick-{name}", title=title, metrics=kept, quick=quick, at=None, rounds=None)


ABLATION = Group(
    "tricks",
    "Each trick left out",
    "pidfdpool complete, then with one of its tricks left out at a time, 2 workers (1 beside a host that computes). "
    f"As in the tables above, but {_TINY:,} tiny tasks. Ratios are to the complete one: less than 1 says that the "
    "trick pays there. Where a trick has nothing to do with a column, its ratio shows what chance does. Without "
    "tasks ahead nothing is taken back, answers come one by one, and only waiting tasks have a short way.",
    (
        replace(
            _again("submit-2", "throughput", "tiny tasks", "rate", "cpu", quick=True),
            measure=partial(throughput.submit, WORKERS, count=_TINY),  # what differs little takes longer to tell
        ),
        _again("latency-steady", "latency", "one at a time", "p50"),
        _again("busy-50us", "busy", "computing host, 50 µs", "share"),
        _again("asyncio-native", "asyncio", "asyncio, pool.run", "burst"),
        _again("skewed-submit", "unequal", "unequal tasks by submit", "makespan"),
        _again("skewed-map", "unequal-map", "unequal tasks by map", "makespan"),
        _again("map-100k", "map", "map(abs), 100,000", "rate"),
        _again("echo-bytes-64kb", "echo-small", "64 KB there and back", "rate"),
        _again("echo-bytes-1mb", "echo", "1 MB there and back", "rate"),
        _again("first-result", "start", "start", "first", "submitted"),
    ),
    contenders=(OURS, *LEFT_OUT),
    baseline=OURS,
)
