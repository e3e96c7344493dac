"""Cuts the pool's own frames from the traceback of what a task raised, before it becomes text for the host.

The outermost frames are the worker's loop, which is the same for every task. What follows is the task's own code, or
the pool's pickling, if the call could not be rebuilt or the result not be pickled: of that one frame is kept, which
says so. `loop.stacks` does the same to the stacks of workers that were told to end.
"""

from __future__ import annotations

from pidfdpool.serialization import exception_chains, payload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from pidfdpool.transport.framing import Buffer

_LOOP = ("pidfdpool.worker.", "pidfdpool.template.")


def told(error: BaseException, shared: payload.SharedMain | None) -> list[Buffer]:
    """Return what the host is told of an exception, and let go of the frames that it came through.

    They hold all that the task had: its arguments, its variables, a result that did not pickle.
    """
    buffers = payload.dump_error(cut(error), shared)
    exception_chains.drop_tracebacks(error)
    return buffers


def cut(error: BaseException) -> BaseException:
    """Start the exception's traceback where the task's own code starts, and return the exception.

    If there is no frame of the task's, the innermost one is kept.
    """
    # Neither read nor set by attribute access: it may be a property of the user's class, or a frozen dataclass.
    traceback = BaseException.__dict__["__traceback__"]
    trace = traceback.__get__(error)
    loop = pickling = None  # the innermost frame of each among the pool's own
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
