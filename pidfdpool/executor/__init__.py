"""What users call: `PidfdPoolExecutor`, its options, its futures, all kinds of map, and the calls for asyncio.

Beside it stand an executor without processes (`serial`), the pool that a process shares (`shared`), and the choice of
what a system has (`choosing`).

It checks arguments, serializes calls and passes them to a pool (`loop`), which it starts at the first submit. It also
acts when the interpreter ends and when the host forks (`lifecycle`).

Users call it in any of their threads; the calls for asyncio run in the thread of the event loop. Nothing here reads a
channel, starts a process or knows what a frame is.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pidfdpool.executor.pool_executor import PidfdPoolExecutor, ProcessPoolExecutor

__all__ = ["PidfdPoolExecutor", "ProcessPoolExecutor"]


def __getattr__(name: str) -> object:
    """Load a class that could be imported from here when this was a module."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pidfdpool.executor import pool_executor

    return getattr(pool_executor, name)
