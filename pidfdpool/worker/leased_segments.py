"""The worker's end of segments: it reads calls that lie in segments, and writes large results into leased ones.

Called by the worker's loop (`process`), on its thread, and only for tasks whose frames say that segments are
involved.

When a task is over, this looks whether some object still has a view of the call's segment. If so, the mapping is left
to that object, and the host is told not to use the segment again. The same is done if the task has forked, because
the child has the segment mapped, too.

What segments need is loaded with the first segment, because most workers never get one, and a template that loads it
forks its first worker a millisecond later.
"""

from __future__ import annotations

import os

from pidfdpool.process import native
from pidfdpool.serialization import payload
from pidfdpool.serialization.out_of_band import OutOfBandPickle
from pidfdpool.transport import framing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pidfdpool.transport.channel import Channel
    from pidfdpool.transport.framing import Buffer, Frame
    from pidfdpool.transport.segments import memory


class LeasedSegments:
    """The segments that this worker has mapped, and those that the current task uses."""

    def __init__(self, channel: Channel) -> None:
        self.active: bool = False  # the current task's call or result uses a segment
        self.expects_large: bool = False  # the current task's result is probably large
        self._channel = channel
        self._mapped: dict[int, memory.Mapping] = {}  # by number
        self._call_segment: int | None = None  # the number of the segment in which the current call lies
        self._has_views = False  # objects of the current call may have views of it
        self._result_segment: int | None = None
        self._flags = 0  # of the answer to the current task
        self._forked = False  # the current task has forked

    @property
    def mapped_bytes(self) -> int:
        """The bytes that this worker has mapped. They belong to the pool, though they count as resident memory."""
        return sum(map(len, self._mapped.values()))

    # ---- frames --------------------------------------------------------------------------------------------

    def handle_frame(self, frame: Frame) -> None:
        """Map a segment, or unmap one; before the first, prepare the channel for descriptors."""
        if frame.kind == framing.EXPECT_DESCRIPTORS:
            self._channel.accept_descriptors()
            os.register_at_fork(after_in_parent=self._note_fork)
            return
        if frame.kind == framing.UNMAP_SEGMENT:
            self._mapped.pop(frame.value, None)
            return
        fd = self._channel.next_descriptor()
        if fd is None:
            return  # no descriptor was left; the task that needs the segment will not find it
        try:
            from pidfdpool.transport.segments import arena, layout, memory  # noqa: F401  what other methods use

            is_call = frame.slot == arena.CALL
            size = frame.generation * memory.PAGE
            mapping = memory.map_file(fd, size, memory.PRIVATE if is_call else memory.SHARED)
            if not is_call:
                memory.populate(mapping)
            self._mapped[frame.value] = mapping
        except (OSError, ImportError):  # no descriptor is left to load a file with, or there is no such file here
            pass
        finally:
            native.close(fd)

    def begin_task(self, frame: Frame) -> bool:
        """Begin a task that uses segments. Afterwards the frame's buffers are those of the call.

        Return False if the call's segment did not arrive, so that the task cannot be run.
        """
        lease = framing.LEASE.unpack(frame.buffers.pop())[0] if frame.slot & framing.HAS_LEASE else None
        if frame.slot & framing.CALL_IN_SEGMENT:
            if not self._mapped:
                return False  # perhaps not even what segments need could be loaded
            from pidfdpool.transport.segments import layout

            reference = frame.buffers[0]
            number = layout.number_of(reference)
            mapping = self._mapped.get(number)
            if mapping is None:
                return False
            frame.buffers[:] = layout.parts(reference, memoryview(mapping))
            self._call_segment = number
            self._has_views = len(frame.buffers) > 1
        self._flags = framing.HAS_SEGMENT_FLAGS
        if lease in self._mapped:
            self._result_segment = lease
        elif lease:
            self._flags |= framing.LEASE_NOT_RECEIVED
        self.expects_large = lease is not None
        self.active = True
        return True

    def dump_result(self, result: object, shared: payload.SharedMain | None) -> list[Buffer]:
        """Return the payload of a result that is probably large, or a reference to the segment that now holds it.

        What goes through the channel is sent from where it lies, before anything can change it.

        Raises:
            Exception: as `payload.dumps`.
        """
        pickled = OutOfBandPickle(result, shared)
        number = self._result_segment
        if number is None:
            return pickled.left_out()
        from pidfdpool.transport.segments import THRESHOLD, layout

        plan = layout.Layout(pickled.pieces, pickled.out_of_band)
        mapping = self._mapped[number]
        if THRESHOLD <= plan.size <= len(mapping) and not pickled.mentions(payload.CLASS_BY_VALUE):
            with memoryview(mapping) as whole:
                plan.write(whole)
            self._flags |= framing.RESULT_IN_SEGMENT
            return [plan.reference(number)]
        return pickled.left_out()

    def end_task(self) -> int:
        """End the task and return the flags of its answer. The caller holds no object of the task any more."""
        flags, self._flags = self._flags, 0
        number, self._call_segment = self._call_segment, None
        self._result_segment = None
        self.active = self.expects_large = False
        if number is not None and self._release_call(number):
            flags |= framing.CALL_SEGMENT_FREE
        self._has_views = self._forked = False
        return flags

    def _release_call(self, number: int) -> bool:
        """Return whether the call's segment may be used again. Otherwise it is left to the objects that view it."""
        if not self._has_views:
            return True
        from pidfdpool.transport.segments import memory

        mapping = self._mapped[number]
        if self._forked or memory.has_views(mapping):
            del self._mapped[number]
            return False
        memory.discard_private_pages(mapping, len(mapping))
        return True

    def _note_fork(self) -> None:
        self._forked = True

    def close_in_forked_child(self) -> None:
        """Unmap what no object views, in a process that a task forked."""
        self._mapped.clear()
        self.active = self.expects_large = False
