"""Logging that cannot fail.

Handlers, filters and loggers are the host's, and may raise: a full disk, a closed stream, a bug. In the pool thread
that would end the pool, and futures would hang. Whatever they raise is dropped, as there is nobody left to tell.
"""

from __future__ import annotations

from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from typing import Any


def write(logger: logging.Logger, level: int, message: str, *arguments: object, **options: Any) -> None:
    """Log, as `logger.log` does. From any thread; never raises."""
    with suppress(BaseException):
        logger.log(level, message, *arguments, stacklevel=2, **options)
