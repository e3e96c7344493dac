"""Cuts the pool's own frames from the traceback of an exception of a task, before it becomes text for the host.

Called by the worker's loop and by `chunk`, on the worker's thread; and in the template, for a preload that fails.

The outermost frames belong to the worker's loop and are the same for every task. The frames after them belong to the
task's own code, or to the pool's pickling, if the call could not be unpickled or the result not be pickled. Of the
pool's pickling one frame is kept, which shows that. So is the call of an initializer or a preload, in `boot`.
`loop.stacks` does the same to the stacks of workers that were killed.
"""

from __future__ import annotations

from contextlib import suppress

from pidfdpool.serialization import exception_chains, payload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from pidfdpool.transport.framing import Buffer

_LOOP = (
    "pidfdpool.executor.serial_calls",
    "pidfdpool.integrations.process_pool.calls",
    "pidfdpool.swarm.node_process",
    "pidfdpool.template.",
    "pidfdpool.worker.chunk",
    "pidfdpool.worker.identity",
    "pidfdpool.worker.process",
    "pidfdpool.worker.tracebacks",
)


NO_RESULT = object()  # the call has not returned


def dump_error(error: BaseException, shared: payload.SharedMain | None, result: object = NO_RESULT) -> list[Buffer]:
    """Return the payload of an exception, and release the frames of its traceback.

    The frames hold the task's arguments, its variables, and a result that could not be pickled.

    result: what the call has returned, if the exception came when that was pickled. The exception is told so by a
        note, because it looks like one that the task has raised.
    """
    if result is not NO_RESULT:
        from pidfdpool import checks

        with suppress(Exception):  # the exception's class refuses notes
            error.add_note(f"the result cannot be pickled: {checks.short_repr(result)}")
    buffers = payload.dump_error(cut(error), shared)
    exception_chains.drop_tracebacks(error)
    return buffers


def cut(error: BaseException) -> BaseException:
    """Start the exception's traceback where the task's own code starts, and return the exception.

    If there is no frame of the task's, the innermost frame is kept.
    """
    # Neither read nor set by attribute access: the user's class may have a property of that name, or be frozen.
    traceback = BaseException.__dict__["__traceback__"]
    trace = traceback.__get__(error)
    loop = pickling = None  # of the pool's own frames, the innermost one of either kind
    while trace is not None and (module := _module_of(trace)).startswith("pidfdpool."):
        if module.startswith(_LOOP):
            loop = trace
        else:
            pickling = trace
        trace = trace.tb_next
    traceback.__set__(error, pickling or trace or loop)
    return error


def _module_of(trace: TracebackType) -> str:
    name = trace.tb_frame.f_globals.get("__name__")
    return name if type(name) is str else ""
