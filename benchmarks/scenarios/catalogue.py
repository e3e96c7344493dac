"""All scenarios, in the order in which they are run and shown."""

from __future__ import annotations

from benchmarks.scenario import Scenario
from benchmarks.scenarios import (
    ablation,
    bounds,
    cancelling,
    hosts,
    idle,
    latency,
    lives,
    many,
    mapping,
    payloads,
    throughput,
)

GROUPS = (
    throughput.THROUGHPUT,
    latency.LATENCY,
    mapping.MAPS,
    mapping.SKEWED,
    mapping.LAZY,
    bounds.AHEAD,
    bounds.TIMED,
    cancelling.CANCEL,
    payloads.JSON,
    *payloads.ECHO,
    *payloads.ONE_WAY,
    lives.START,
    lives.END,
    lives.CRASH,
    idle.IDLE,
    hosts.BUSY,
    hosts.ASYNCIO,
    throughput.SCALE,
    many.MANY,
    ablation.ABLATION,
)

SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for group in GROUPS for scenario in group.scenarios}
