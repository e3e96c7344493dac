"""A machine that is led to where a test begins, with a clock of the test's own."""

from __future__ import annotations

from pidfdpool.pidfd import ExitStatus
from pidfdpool.scheduler import events as ev
from pidfdpool.scheduler.machine import Machine
from pidfdpool.scheduler.policy import Policy

KILLED = ExitStatus(signal=9)
ENDED = ExitStatus(code=0)
TERM, KILL = 15, 9


def started(workers: int = 1, ready: int | None = None, **policy) -> Machine:
    """Return a machine with a template and, at 0.0, idle workers in its first slots that have done one task each.

    Workers that had to be replaced at once stop, and their replacements start; all tasks here are numbered below 0.
    """
    machine = Machine(Policy(max_workers=workers, **policy))
    ready = workers if ready is None else ready
    for task in range(1, ready + 1):
        machine.decide(ev.Submitted(-task), 0.0)
    machine.decide(ev.TemplateUp(), 0.0)
    slots = machine.slots[:ready]
    for slot in slots:
        machine.decide(ev.Spawned(slot.index, slot.generation, 100 + slot.index), 0.0)
    for slot in slots:
        machine.decide(ev.Ready(slot.index, slot.generation), 0.0)
    for slot in slots:
        machine.decide(ev.Finished(slot.index, slot.generation, slot.task), 0.0)
    return machine


def begun(now: float = 1.0, **policy) -> Machine:
    """Return a machine whose one worker (slot 0, generation 1) was given task 1 at `now`."""
    machine = started(1, **policy)
    machine.decide(ev.Submitted(1), now)
    assert machine.running == {1: 0}
    return machine


def get_ready(machine: Machine, slot: int, generation: int, now: float) -> list:
    """Have a worker that was asked for come up; return what follows from its being ready."""
    assert machine.decide(ev.Spawned(slot, generation, 100 + slot), now) == []
    return machine.decide(ev.Ready(slot, generation), now)


def only(actions: list, kind: type) -> list:
    """Return the actions of one kind."""
    return [action for action in actions if isinstance(action, kind)]
