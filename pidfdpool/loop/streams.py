"""What passes between the host and a worker while a task streams: items one way, orders the other.

`take_items` is called by the thread that reads the workers' answers, `order` by any thread. Neither unpickles
anything: who reads the stream does that. `worker.streaming` is the worker's end.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from pidfdpool.scheduler.states import State
from pidfdpool.transport import framing

if TYPE_CHECKING:
    from pidfdpool.loop.decisions import Decisions
    from pidfdpool.loop.links import WorkerLink
    from pidfdpool.transport.framing import Frame


def take_items(core: Decisions, link: WorkerLink, frame: Frame) -> framing.ProtocolError | None:
    """Hand the items of a frame to the recipient of its task. Return what is wrong, if it runs no such stream."""
    with core.lock:
        slot, task = core.machine.slots[link.slot], core.tasks.get(frame.value)
        at_work, runs_it = slot.state in (State.BUSY, State.IDLE), slot.task == frame.value
    take_payload = getattr(task.future, "take_payload", None) if task is not None and runs_it else None
    if take_payload is None:  # only the recipient of a stream has it
        if at_work:
            return framing.ProtocolError(f"items of task {frame.value}, which is no stream of its own")
        return None  # it is being killed, and the task has ended for that reason
    take = partial(take_payload, frame.buffers, together=bool(frame.slot))
    # Nothing may overtake what was left to the pool thread: this task's end may be among it.
    core.outbox.leave([take]) if core.outbox.left else take()
    return None


def order(core: Decisions, task: int, kind: int, taken: int = 0) -> None:
    """Tell the worker that runs a stream what its reader wants. Nothing happens if no worker runs it.

    kind: framing.STREAM_ROOM and its kin. taken: items that the reader has taken so far.
    """
    if core.is_reentered or core.defers:  # a signal handler must not interrupt a write, nor come in between
        core.outbox.leave([partial(_order, core, task, kind, taken)])
    else:
        _order(core, task, kind, taken)


def _order(core: Decisions, task: int, kind: int, taken: int) -> None:
    with core.lock:
        # Ahead: the worker may have begun it, and the host has not read yet that the task before it is done.
        slot = next((slot for slot in core.machine.slots if slot.task == task or task in slot.ahead), None)
        link = None if slot is None or task not in core.tasks else core.workers.get(slot.index)
        if link is not None:
            with suppress(OSError):  # it is dying, and its pidfd tells
                link.post(framing.encode(framing.STREAM, kind, taken & framing.COUNT_MASK, task))
