"""The observer behind a trace: it keeps what it is told, and has it formatted and written a slice at a time.

To format the events of one task takes some 6 us, which is as much as a pool needs for a tiny task. So `take` only
keeps the records. In the pool thread `work` formats, slice by slice, when the pool has had no task for a while;
otherwise a slice of half a millisecond 5 times a second, which is 0.25 % of a processor. What is left then, `finish`
does in the thread that leaves the trace, or at the pool's end. The number of events is limited, and with it the
memory and the file.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from pidfdpool.executor.tracing.events import LINES_OF_ATTEMPT
from pidfdpool.loop.observed import Attempts, PoolLevel
from pidfdpool.process import locks, safe_logging

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pidfdpool.executor.tracing.events import TraceEvents
    from pidfdpool.executor.tracing.sink import Sink
    from pidfdpool.loop.observed import Record

BUSY_SLICE = 0.0005  # seconds, while the pool has tasks
IDLE_SLICE, IDLE_PAUSE = 0.001, 0.001  # seconds, while it has none
IDLE_AFTER = 0.1  # seconds without a task; before that its user may be busy with the results
LOOK = 0.2  # seconds, while it has tasks or nothing is to be formatted: what a leader has read is taken then
MEMORY_EVERY = 1.0  # seconds
SPARE = 10_000  # events about other things than tasks, which are kept beyond the limit
_FEW = 20  # attempts that are formatted between two looks at the clock
_AT_ONCE = 2000  # attempts that `finish` formats between two writes

_log = logging.getLogger("pidfdpool")


class Recorder:
    """An observer that writes a trace. Its methods are called by one thread at a time, but for `abandon`.

    Attributes:
        dropped: attempts of tasks that it does not tell of.
        error: why the trace ends early; None: it does not.
    """

    def __init__(
        self,
        events: TraceEvents,
        sink: Sink,
        max_events: int,
        measure: Callable[[], Iterable[tuple[int, int]]],
    ) -> None:
        """measure: returns slot and resident memory of each worker. Called in the pool thread."""
        self._events, self._sink, self._measure = events, sink, measure
        self._max_events = max_events
        self._kept = 0  # events, ever
        self._records: deque[Record] = deque()
        self._at = 0  # how many attempts of the first record are formatted
        self._lock = locks.plain()  # held while something is formatted and written
        self._memory_at = 0.0  # these three in time.monotonic()'s seconds
        self._due_at = 0.0
        self._busy_at = 0.0
        self._over = False
        self.dropped = 0
        self.error: Exception | None = None

    # ---- as an observer ------------------------------------------------------------------------------------

    def take(self, records: Sequence[Record]) -> None:
        """Keep records, as many as there is room for."""
        if self._over:
            return
        for record in records:
            if type(record) is Attempts:
                count = len(record.tasks)
                if self._kept + LINES_OF_ATTEMPT * count > self._max_events:
                    self.dropped += count
                    continue
                self._kept += LINES_OF_ATTEMPT * count
            elif self._kept < self._max_events + SPARE:
                self._kept += 2 if type(record) is PoolLevel else 1
            else:
                continue
            self._records.append(record)

    def work(self, now: float, *, idle: bool) -> float | None:
        """Format and write a slice, if one is due; return when the next one is."""
        if self._over:
            return None
        if not idle:
            self._busy_at = now
        if now >= self._due_at and self._lock.acquire(blocking=False):
            try:
                is_idle = now - self._busy_at >= IDLE_AFTER
                self._due_at = now + self._write_slice(now, IDLE_SLICE if is_idle else BUSY_SLICE)
            finally:
                self._lock.release()
        return max(self._due_at, now + IDLE_PAUSE)

    def _write_slice(self, now: float, seconds: float) -> float:
        """Write for so many seconds; return in how many the next slice is due."""
        if not self._sink.writes_early:
            return LOOK
        if now >= self._memory_at:
            self._memory_at = now + MEMORY_EVERY
            self._write_memory(now)
        self._write_until(now + seconds)
        return IDLE_PAUSE if self._records and seconds == IDLE_SLICE else LOOK

    def pool_ended(self) -> None:
        """Complete a file now, in the pool thread: at the interpreter's exit nobody may leave the trace any more."""
        if self._sink.writes_early:
            self.finish(time.monotonic())

    def follows_into_forked_child(self) -> bool:
        """Let go of everything in a forked child: the file is the parent's."""
        self.abandon()
        return False

    # ---- writing -------------------------------------------------------------------------------------------

    def begin(self, header: Sequence[str]) -> None:
        """Write the first events. Raises as `Sink.write`."""
        self._sink.write(header)

    def finish(self, now: float) -> None:
        """Write all that is left, and the end, and close. Without an error, whatever happens to the file."""
        if self._over:
            return  # in a forked child the lock may have been copied while it was held
        with self._lock:
            try:
                while self._records and not self._over:
                    self._write_some(_AT_ONCE)
                if not self._over:
                    if self.dropped:
                        self._write([self._events.dropped(now, self.dropped)])
                        message = "the trace %s does not tell of %d tasks: it is limited to %d events"
                        safe_logging.log(
                            _log, logging.WARNING, message, self._sink.name, self.dropped, self._max_events
                        )
                    self._end()
            finally:
                self.abandon()

    def abandon(self) -> None:
        """Keep and write nothing more, and close the file. In any thread of a forked child."""
        self._over = True
        self._records.clear()
        self._sink.close()

    def _write_until(self, deadline: float) -> None:
        while self._records and not self._over:
            self._write_some(_FEW)
            if time.monotonic() >= deadline:
                break

    def _write_some(self, count: int) -> None:
        """Write the events of so many attempts or other records."""
        lines: list[str] = []
        while self._records and count > 0:
            record = self._records[0]
            if type(record) is Attempts:
                end = min(self._at + count, len(record.tasks))
                lines += self._events.of_some(record, self._at, end)
                count -= end - self._at
                self._at = end
                if end < len(record.tasks):
                    break
                self._at = 0
            else:
                lines += self._events.of(record)
                count -= 1
            self._records.popleft()
        self._write(lines)

    def _write_memory(self, now: float) -> None:
        sizes = list(self._measure())
        if sizes and self._kept < self._max_events + SPARE:
            self._kept += 1
            self._write([self._events.memory(now, sizes)])

    def _write(self, lines: list[str]) -> None:
        try:
            self._sink.write(lines)
        except Exception as error:
            self._fail(error)

    def _end(self) -> None:
        try:
            self._sink.finish()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """End the trace early. The pool goes on."""
        self.error = error
        message = "the trace %s ends early, because it cannot be written: %s"
        safe_logging.log(_log, logging.WARNING, message, self._sink.name, error)
        self.abandon()
