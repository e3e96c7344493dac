"""Hands events to those who want them: the log, and callbacks of users. Never raises.

Called in the supervisor's thread, without a lock.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from pidfdpool.loop import death_reports
from pidfdpool.process import safe_logging
from pidfdpool.swarm.records import EventKind, NodeEvent

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pidfdpool.swarm import actions as do

_log = logging.getLogger("pidfdpool.swarm")
_log.addHandler(logging.NullHandler())

_LEVELS = {
    EventKind.UNHEALTHY: logging.WARNING,
    EventKind.SILENT: logging.WARNING,
    EventKind.KILLED: logging.WARNING,
    EventKind.START_FAILED: logging.WARNING,
    EventKind.GAVE_UP: logging.ERROR,
    EventKind.STOPPING: logging.DEBUG,
}


class EventFeed:
    """Those who want to know what happens to one swarm's nodes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._subscribers: list[Callable[[Any], object]] = []

    def subscribe(self, callback: Callable[[NodeEvent], object]) -> Callable[[], None]:
        """Add a callback; return what removes it again.

        Raises:
            TypeError: it is not callable.
        """
        return death_reports.subscribe(self._subscribers, callback)

    def publish(self, event: NodeEvent) -> None:
        """Log an event and call those who subscribed."""
        level = _LEVELS.get(event.kind, logging.INFO)
        if event.death is not None and not event.death.expected:
            level = logging.WARNING
        safe_logging.log(_log, level, "swarm %s: %s", self._name, event, extra={"event": event})
        for callback in list(self._subscribers):
            try:
                callback(event)
            except BaseException:
                message = "exception calling %r for an event of node %d"
                safe_logging.log(_log, logging.ERROR, message, callback, event.node, exc_info=True)


def made_of(action: do.Tell) -> NodeEvent:
    """Return the event that the machine wants to be told, at this moment."""
    return NodeEvent(
        kind=action.kind,
        node=action.node,
        attempt=action.attempt,
        pid=action.pid,
        at=time.time(),
        detail=action.detail,
        reason=action.reason,
        death=action.death,
        history=action.history,
    )
