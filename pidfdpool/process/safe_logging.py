"""Logs without ever raising an exception.

Called by every room, in any process, on any thread. Handlers, filters and loggers belong to the host, and may raise:
a full disk, a closed stream, a bug. In the pool thread that would end the pool, and futures would never be resolved.
So what they raise is dropped.
"""

from __future__ import annotations

from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from typing import Any


def log(logger: logging.Logger, level: int, message: str, *arguments: object, **options: Any) -> None:
    """Log, as `logger.log` does. From any thread; never raises."""
    with suppress(BaseException):
        logger.log(level, message, *arguments, stacklevel=2, **options)
