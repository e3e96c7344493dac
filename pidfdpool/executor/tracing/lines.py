"""One event of a trace as a line of JSON. Pure. Traces of pools and of swarms are made of these."""

from __future__ import annotations

import json
from typing import Any

FORMAT = 1


class EventLines:
    """Makes the lines of one trace."""

    def __init__(self, began_at: float, pid: int) -> None:
        """began_at: when the trace began, on the clock of what it is told. pid: the host's."""
        self._began_at, self._pid = began_at, pid

    def header(self, name: str, **args: object) -> list[str]:
        """Return the first events: what the trace is of. args: as docs/tracing.md says."""
        return [
            self.meta("pidfdpool", {"format": FORMAT, **args}),
            self.meta("process_name", {"name": f"pidfdpool {name}" if name else "pidfdpool"}),
        ]

    def track(self, tid: int, name: str) -> list[str]:
        """Return the events that name a track, and put it in its place."""
        return [
            self.meta("thread_name", {"name": name}, tid),
            self.meta("thread_sort_index", {"sort_index": tid}, tid),
        ]

    def meta(self, name: str, args: dict[str, object], tid: int = 0) -> str:
        """Return an event that describes the trace."""
        return json.dumps({"ph": "M", "name": name, "pid": self._pid, "tid": tid, "args": args})

    def event(
        self,
        ph: str,
        name: str,
        tid: int,
        at: float,
        *,
        cat: str | None = None,
        dur: float | None = None,
        s: str | None = None,
        args: dict[str, Any] | None = None,
    ) -> str:
        """Return any other event. dur: in microseconds."""
        event: dict[str, object] = {"ph": ph, "name": name, "pid": self._pid, "tid": tid}
        event["ts"] = max(0.0, round((at - self._began_at) * 1e6, 3))
        more = {"cat": cat, "dur": dur, "s": s, "args": args}
        event.update({key: value for key, value in more.items() if value is not None})
        return json.dumps(event)
