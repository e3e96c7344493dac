"""The end of a pool in this process: what is left is closed. If its own code has failed, futures are failed before.

In the pool thread, or in the thread that could not start it.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from pidfdpool.loop import task_errors
from pidfdpool.loop.decisions import describe_failure
from pidfdpool.process import interruptible, native

if TYPE_CHECKING:
    from pidfdpool.loop.decisions import Decisions


def fail_everything(core: Decisions, error: BaseException) -> None:
    """Fail every future and kill every worker, because the pool can no longer be trusted to do either."""
    with core.lock:
        core.closed = True
        resolver = core.resolver
        resolver.cause = resolver.cause or error
        reason = describe_failure(error)
        core.machine.give_up(reason)
        failing = [resolver.failing(number, resolver.broken_error(reason)) for number in list(core.tasks)]
        failing += core.admission.refuse()
        core.readiness.notify_all()
        for link in core.workers.values():
            with suppress(Exception):
                link.signal(signal.SIGKILL)
    core.outbox.leave(failing)  # behind those that were left before, which have an outcome of their own


def close_everything(core: Decisions) -> None:
    """Close what is left; the template sees its channel close, and ends. The caller has the lock."""
    for link in core.workers.values():
        link.close()
    core.workers.clear()
    core.leases.close()
    if core.template is not None:
        core.template.close()
        core.dispatcher.template = None
    core.leadership.close()


def abandon_in_forked_child(core: Decisions) -> None:
    """Let go of everything in a process that was forked while the pool was alive; the parent goes on.

    No lock is taken and nothing unregistered: locks may have been copied while held, and what epoll watches is the
    parent's too.
    """
    core.closed = core.abandoned = True
    # A child that was forked in a callback comes back to the pool thread's work, to find out that it is over.
    core.lock = native.reentrant_lock()
    core.readiness = interruptible.Condition(core.lock)
    core.outbox.abandon_in_forked_child()
    core.leases.abandon_in_forked_child()
    if core.logs is not None:
        core.logs.abandon_in_forked_child()
    core.poller.close_in_forked_child()
    for link in [*core.workers.values(), core.template]:
        # The fork may have come between any two steps of the pool thread's.
        with suppress(OSError):
            if link is not None:
                link.close_in_forked_child()
    core.tasks.update(core.admission.abandon_in_forked_child())
    for task in [*core.tasks.values(), *core.undelivered.values()]:
        task.future._fail_in_forked_child(task_errors.inherited_error())
