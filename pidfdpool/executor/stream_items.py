"""Rebuilds the items of a stream from what has come. Called by `stream`, in the thread that reads.

That may be the main thread, where a signal handler may raise anywhere. Its exception is no error of the item.
"""

from __future__ import annotations

import _pickle
from typing import TYPE_CHECKING, Any

from pidfdpool.errors import PayloadError
from pidfdpool.loop import outcomes
from pidfdpool.process import describe, interruptible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pidfdpool.transport.framing import Buffer


def split(buffers: Sequence[Buffer]) -> list[tuple[bytes]]:
    """Return the payloads that travelled together.

    Raises:
        PayloadError: there are none, or they cannot be read.
    """
    try:
        items = _pickle.loads(buffers[0])
        if type(items) is list and set(map(type, items)) == {bytes}:
            return [(item,) for item in items]
        problem = describe.type_name(items)
    except Exception as error:
        if interruptible.is_of_handler(error):
            raise
        problem = describe.error_text(error)
    raise PayloadError(f"the items of a stream cannot be read: {problem}")


def rebuilt(payload: Sequence[Buffer]) -> Any:
    """Return the item.

    Raises:
        PayloadError: it cannot be rebuilt.
    """
    try:
        return outcomes.load_result(payload)
    except PayloadError as error:
        cause = error.__cause__
        if not isinstance(cause, Exception) or not interruptible.is_of_handler(cause):
            raise
    raise cause
