"""All scenarios, in the order in which they are run and shown."""

from __future__ import annotations

from benchmarks.scenario import Scenario
from benchmarks.scenarios import ablation, hosts, idle, latency, lives, mapping, payloads, throughput

GROUPS = (
    throughput.THROUGHPUT,
    latency.LATENCY,
    mapping.MAPS,
    mapping.SKEWED,
    mapping.LAZY,
    payloads.JSON,
    *payloads.ECHO,
    lives.START,
    lives.END,
    lives.CRASH,
    idle.IDLE,
    hosts.BUSY,
    hosts.ASYNCIO,
    throughput.SCALE,
    ablation.ABLATION,
)

SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for group in GROUPS for scenario in group.scenarios}
