"""Which segments a worker knows, and which of them it has for the tasks that it was sent.

One account for each worker, owned by its link; `segment_leases` keeps the books. Under the pool's lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidfdpool.records import dataclass

if TYPE_CHECKING:
    from pidfdpool.transport.segments.arena import Arena, Segment


class ResultLease:
    """A segment for a result, leased to a worker. It is given back when this is gone, unless it was taken out."""

    __slots__ = ("_arena", "segment")

    def __init__(self, arena: Arena, segment: Segment) -> None:
        self._arena = arena
        self.segment: Segment | None = segment

    def __del__(self) -> None:
        if self.segment is not None:
            self._arena.release(self.segment)


@dataclass(frozen=True, slots=True)
class TaskSegments:
    """The segments that a worker has for one task."""

    call: Segment | None
    result: ResultLease | None
    deadline: float | None


class SegmentAccount:
    """Which segments one worker has mapped, and which it has for which task. With the pool's lock."""

    __slots__ = ("expects_descriptors", "leased", "mapped_sizes")

    def __init__(self) -> None:
        self.expects_descriptors: bool = False  # it was told that they are coming
        self.mapped_sizes: dict[int, int] = {}  # by the number of a segment that it has mapped
        self.leased: dict[int, TaskSegments] = {}  # by task

    def close(self) -> None:
        """Let go of everything that a worker had which is dead, or whose answers are not read any more."""
        for had in self.leased.values():
            for segment in (had.call, None if had.result is None else had.result.segment):
                if segment is not None:
                    segment.not_reusable = True
        self.leased.clear()
        self.mapped_sizes.clear()

    @property
    def mapped(self) -> int:
        """The bytes of segments that the worker has mapped: they are the pool's, though they count as resident."""
        return sum(self.mapped_sizes.values())
