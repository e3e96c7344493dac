"""The worker's end of segments: it reads calls in them, and writes large results into those that it is lent.

Called by the loop of a worker, on its only thread, and only for tasks of which the host says that segments are in
play.

Whether somebody still looks at a call is found out when its task is over. If so, the mapping is left to whoever does,
and the host is told to use the segment no more; as well if the task has forked, because the child has it mapped, too.
"""

from __future__ import annotations

import os

from pidfdpool.process import native
from pidfdpool.serialization import payload
from pidfdpool.serialization.out_of_band import OutOfBandPickle
from pidfdpool.transport import framing
from pidfdpool.transport.segments import THRESHOLD, layout, memory
from pidfdpool.transport.segments.arena import CALL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pidfdpool.transport.channel import Channel
    from pidfdpool.transport.framing import Buffer, Frame


class Borrowing:
    """What this worker has mapped, and what the current task has of it."""

    def __init__(self, channel: Channel) -> None:
        self.active = False  # the current task has to do with segments
        self.lends = False  # and its result may be written into one
        self._channel = channel
        self._mapped: dict[int, memory.Mapping] = {}
        self._call: int | None = None  # the number of the segment in which the current call lies
        self._seen = False  # the call has views of it
        self._loan: int | None = None
        self._flags = 0
        self._forked = False

    @property
    def mapped(self) -> int:
        """The bytes that this worker has mapped. They are the pool's, though they count as resident memory."""
        return sum(map(len, self._mapped.values()))

    # ---- frames --------------------------------------------------------------------------------------------

    def take(self, frame: Frame) -> None:
        """Map a segment, or unmap one; before the first, get ready to receive them."""
        if frame.kind == framing.EXPECT_DESCRIPTORS:
            self._channel.accept_descriptors()
            os.register_at_fork(after_in_parent=self._note_fork)
            return
        if frame.kind == framing.UNMAP_SEGMENT:
            self._mapped.pop(frame.value, None)
            return
        fd = self._channel.next_descriptor()
        if fd is None:
            return  # none was left; the task that needs it will not find it
        try:
            size = frame.generation * memory.PAGE
            mapping = memory.map_file(fd, size, memory.PRIVATE if frame.slot == CALL else memory.SHARED)
            if frame.slot != CALL:
                memory.populate(mapping)
            self._mapped[frame.value] = mapping
        except OSError:
            pass
        finally:
            native.close(fd)

    def open(self, frame: Frame) -> bool:
        """Begin a task that has to do with segments; the frame's buffers are the call's afterwards.

        Return False if its segment did not get here, so that it cannot be run.
        """
        loan = framing.LEASE.unpack(frame.buffers.pop())[0] if frame.slot & framing.HAS_LEASE else None
        if frame.slot & framing.CALL_IN_SEGMENT:
            reference = frame.buffers[0]
            number = layout.number_of(reference)
            mapping = self._mapped.get(number)
            if mapping is None:
                return False
            frame.buffers[:] = layout.parts(reference, memoryview(mapping))
            self._call = number
            self._seen = len(frame.buffers) > 1
        self._flags = (
            framing.HAS_SEGMENT_FLAGS
            if loan is None or loan in self._mapped
            else framing.HAS_SEGMENT_FLAGS | framing.LEASE_NOT_RECEIVED
        )
        self._loan = loan if loan in self._mapped else None
        self.lends = self._loan is not None
        self.active = True
        return True

    def dump(self, result: object, shared: payload.SharedMain | None) -> list[Buffer]:
        """Return the payload of a result that is probably large, or what names it where it was written.

        Raises:
            Exception: as `payload.dumps`.
        """
        assert self._loan is not None
        pickled = OutOfBandPickle(result, shared)
        plan = layout.Layout(pickled.pieces, pickled.out_of_band)
        mapping = self._mapped[self._loan]
        if THRESHOLD <= plan.size <= len(mapping) and not pickled.mentions(payload.CLASS_BY_VALUE):
            with memoryview(mapping) as whole:
                plan.write(whole)
            self._flags |= framing.RESULT_IN_SEGMENT
            return [plan.reference(self._loan)]
        return plan.buffers()

    def answer(self) -> int:
        """End the task, of whose objects the caller holds none any more; return the flags of its answer."""
        flags, self._flags = self._flags, 0
        number, self._call = self._call, None
        self._loan = None
        self.active = self.lends = False
        if number is not None and self._is_free(number):
            flags |= framing.CALL_SEGMENT_FREE
        self._seen = self._forked = False
        return flags

    def _is_free(self, number: int) -> bool:
        """Return whether the call's segment may be used again; otherwise it is left to those who look at it."""
        mapping = self._mapped[number]
        if self._seen and (self._forked or memory.has_views(mapping)):
            del self._mapped[number]
            return False
        if self._seen:
            memory.discard_private_pages(mapping, len(mapping))
        return True

    def _note_fork(self) -> None:
        self._forked = True

    def close_in_forked_child(self) -> None:
        """Let go of what nobody looks at, in a process that a task forked."""
        self._mapped.clear()
        self.active = self.lends = False
