"""How one call is submitted to a pool, for an executor or for a map whose executor may be gone by now.

Called by the threads that submit, without a lock. It is the first part of the hot path of every task.
"""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any

from pidfdpool.executor.unsendable import describe_pickling_error
from pidfdpool.loop import held_arguments
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.loop.task import nameable, unwrapped
from pidfdpool.process import interruptible
from pidfdpool.serialization import picklers

if TYPE_CHECKING:
    from pidfdpool.executor.futures import Future
    from pidfdpool.loop.held_arguments import Call
    from pidfdpool.loop.pool import Pool
    from pidfdpool.loop.task import Recipient
    from pidfdpool.scheduler.policy import Policy


def context_future() -> Future[Any]:
    """Return a future for a call that context variables travel with."""
    from pidfdpool.executor.context_vars import ContextFuture

    return ContextFuture.here()


def submit(pool: Pool, recipient: Recipient, policy: Policy, call: Call, *, wait: bool) -> None:
    """Pickle a call, and submit it. If it does not pickle, the recipient gets that error.

    call: the function, its arguments, and its keyword arguments. wait: for room, as `Pool.submit` has it.

    Raises:
        PoolBroken, QueueFull, RuntimeError: as `Pool.submit`.
        Exception: a signal handler has raised it while the call was pickled.
    """
    fn, args, kwargs = call
    try:
        if policy.context_vars:
            from pidfdpool.executor.context_vars import in_context

            fn = in_context(fn, policy.context_vars)
            call = fn, args, kwargs
        if type(fn) is Chunk:
            call = unwrapped(fn, args, kwargs)
        buffers = pool.leases.pickled(call, pool.recipe.shared_main)
    except Exception as error:  # not BaseException: Ctrl-C does not concern the call
        if interruptible.is_of_handler(error):
            raise  # nor does this
        recipient._begin()
        recipient._resolve(None, describe_pickling_error(error, fn, args, kwargs, pool.recipe.shared_main))
        return
    plain = type(fn) is FunctionType and not (args or kwargs or picklers.shared_resources)
    held = None if plain else held_arguments.held(call, buffers)
    pool.submit(recipient, buffers, fn if plain else nameable(fn), policy, held, wait=wait)
