"""What users call: `PidfdPoolExecutor`, its options, its futures, map in all its forms, and the calls for asyncio.

It checks what users pass, serializes calls and hands them to a pool (`loop`), which it starts at the first submit. It
also notices the interpreter's end and forks of the host (`lifecycle`).

Called by users, on any of their threads; the calls for asyncio in the thread of the event loop. Nothing here reads a
channel, starts a process or knows what a frame is.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pidfdpool.executor.pool_executor import PidfdPoolExecutor, ProcessPoolExecutor

__all__ = ["PidfdPoolExecutor", "ProcessPoolExecutor"]


def __getattr__(name: str) -> object:
    """Load what was to be had here before this was a package, and still is."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pidfdpool.executor import pool_executor

    return getattr(pool_executor, name)
