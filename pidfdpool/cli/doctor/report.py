"""The reports of `doctor` as text and as JSON. Pure.

Called by `doctor`, on the main thread.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from pidfdpool.cli.doctor import hosts, rules
from pidfdpool.cli.doctor.rules import counted, size_text

if TYPE_CHECKING:
    from pidfdpool.cli.doctor.facts import Facts, Interpreter
    from pidfdpool.cli.doctor.hosts import Host, Process
    from pidfdpool.cli.doctor.rules import Finding

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_MAX_COMMAND = 60


def of_machine(facts: Facts) -> str:
    """Return the report of this machine."""
    found = rules.findings(facts)
    heads = {
        "kernel": f"{facts.kernel.system} {facts.kernel.release}, {facts.kernel.machine}",
        "interpreter": _interpreter(facts.interpreter),
        "container": f"cgroup {facts.container.cgroup or 'none'}",
        "self-test": f"{sum(step.seconds for step in facts.steps):.2f} s",
    }
    lines = []
    for topic, head in heads.items():
        of_topic = [finding for finding in found if finding.topic == topic]
        if of_topic:
            lines += [f"{topic}: {head}", *map(_line, of_topic), ""]
    missing = [finding for finding in found if finding.level == "missing"]
    notes = sum(finding.level == "note" for finding in found)
    if missing:
        lines.append(f"pools do not work here as they should: {missing[0].text}")
    else:
        more = f"; {counted(notes, 'note')} above" if notes else ""
        lines.append(f"everything that a pool needs is here{more}")
    return "\n".join(lines)


def of_machine_as_json(facts: Facts) -> str:
    """Return the same as one JSON document."""
    found = rules.findings(facts)
    document = {
        "ok": not rules.is_missing_something(found),
        "findings": [finding._asdict() for finding in found],
        **dataclasses.asdict(facts),
    }
    return json.dumps(document, indent=2)


def of_host(host: Host) -> str:
    """Return the report of a running host."""
    process = host.process
    # The command line of a pool's own process is that of the host, or that of a template.
    label = process.name if process.name.startswith(hosts.PREFIX) else process.command[:_MAX_COMMAND] or process.name
    lines = [f"host {process.pid}: {label}", f"  {_state(process)}"]
    for number, pool in enumerate(host.pools, 1):
        size = f"{counted(len(pool.workers), 'worker')}, {hosts.total(pool)}"
        lines += ["", f"pool {number}: {size}; its template is a {pool.way}"]
        rows = [("template", pool.template)]
        rows += [(f"worker {'?' if each.slot is None else each.slot}", each.process) for each in pool.workers]
        rows += [(each.name, each) for each in pool.others]
        lines += [f"  {label:<12} {each.pid:>8}  {_state(each)}" for label, each in rows]
    notes = [finding for finding in hosts.findings(host) if finding.level != "ok" or not host.pools]
    if notes:
        lines += ["", *(f"{finding.topic}: {finding.text}" for finding in notes)]
    return "\n".join(lines)


def of_host_as_json(host: Host) -> str:
    """Return the same as one JSON document, on one line."""

    def process(each: Process) -> dict[str, Any]:
        hidden = ("watches", "reads", "writes", "command", "started", "session")
        told = {name: value for name, value in dataclasses.asdict(each).items() if name not in hidden}
        return {**told, "state": hosts.STATES.get(each.state, each.state)}

    pools = [
        {
            "way": pool.way,
            "template": process(pool.template),
            "workers": [{"slot": each.slot, **process(each.process)} for each in pool.workers],
            "others": list(map(process, pool.others)),
        }
        for pool in host.pools
    ]
    found = [finding._asdict() for finding in hosts.findings(host)]
    document = {"host": {**process(host.process), "command": host.process.command}, "of": host.of}
    return json.dumps({**document, "pools": pools, "findings": found})


def _interpreter(interpreter: Interpreter) -> str:
    kind = "free-threaded, " if interpreter.free_threaded else ""
    place = "a virtual environment" if interpreter.virtual_environment else interpreter.executable
    return (
        f"{interpreter.implementation} {interpreter.version} ({kind}{interpreter.build}), {place}; "
        f"pidfdpool {interpreter.pidfdpool}, cloudpickle {interpreter.cloudpickle}"
    )


def _line(finding: Finding) -> str:
    return f"  {finding.level:<8} {finding.text}"


def _state(process: Process) -> str:
    state = hosts.STATES.get(process.state, process.state)
    return (
        f"{state:<9} {size_text(process.resident):>8}  {process.processor_time:8.2f} s of processor time, "
        f"for {_age(process.age)}"
    )


def _age(seconds: float) -> str:
    for unit, name in ((_DAY, "days"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"
