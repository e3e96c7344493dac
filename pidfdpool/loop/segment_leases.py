"""The host's end of segments: which payload goes into one, which worker has which, and when it is free again.

    a call      A large call is written into a segment by the thread that submits it (`stage`). A `Staged` payload
                takes its place in the task, and releases the segment when the task is gone. A call that will wait
                behind many others is staged when it is sent. If there is no segment, the payload goes through the
                channel: `Gathered`, or `Unstaged` if it is small enough to be staged later.
    sending     `post`, under the pool's lock, first sends the segments that the worker has not mapped yet: a
                MAP_SEGMENT frame with the descriptor. Then it sends the task.
    a result    If a result is large, that is remembered by the task's name (`_learn`). The next task of that name is
                sent with a lease: a segment into which the worker may write its result. A lease of number 0 says
                that there is none, but that the result is probably large.
    an answer   `settle` ends the use of the task's segments. A segment that something in the worker still views is
                not used again.

The segments of a worker that died are not used again either, because a process that a task started may have them
mapped. A requeued or retried task keeps its segment, which no worker can change.
"""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pidfdpool.loop.segment_account import ResultLease, TaskSegments
from pidfdpool.scheduler.states import State
from pidfdpool.serialization import named_calls, payload
from pidfdpool.serialization.out_of_band import OutOfBandPickle
from pidfdpool.transport import framing
from pidfdpool.transport.segments import THRESHOLD, layout, memory
from pidfdpool.transport.segments.arena import CALL, RESULT, Arena, Segment
from pidfdpool.typed import Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pidfdpool.loop.backpressure import Admission
    from pidfdpool.loop.held_arguments import Call
    from pidfdpool.loop.links import WorkerLink
    from pidfdpool.loop.task import Task
    from pidfdpool.scheduler.machine import Machine
    from pidfdpool.transport.framing import Buffer, Frame

_PATIENCE = 32  # payloads in a row that may be small before large ones are expected no more
_MOST_NAMES = 256
_SOON = 4  # tasks for each worker; a call that is not behind more than these waits for a moment only
_LATE = 4 << 20  # bytes that are copied while the pool's lock is held, at most; it takes about half a millisecond
_MOST_LOOKED_AT = 1024  # results in segments, at a time: a process may have 65530 mappings (vm.max_map_count)

_all: weakref.WeakSet[SegmentLeases] = weakref.WeakSet()


class _Pool(Protocol):
    """What the leases need of their pool."""

    lock: Any
    machine: Machine
    tasks: dict[int, Task]
    workers: dict[int, WorkerLink]
    admission: Admission

    def wake_pool_thread(self) -> None:
        """Have the pool thread look for something to do. Any thread, at any point; needs no lock."""


class Staged(list["Buffer"]):
    """The payload of a call that lies in a segment: the reference. It gives the segment back when it is gone."""

    def __init__(self, arena: Arena, segment: Segment, reference: bytes, last_byte: int) -> None:
        super().__init__((reference,))
        self.last_byte = last_byte  # of the pickle
        self.arena = arena
        self.segment = segment

    def through_channel(self) -> list[Buffer]:
        """Return the payload itself, to be sent from where it lies: nothing else is ever written there."""
        assert self.segment.shared is not None
        self.segment.not_reusable = True
        return [*layout.parts(self[0], memoryview(self.segment.shared))]

    def __del__(self) -> None:
        self.arena.release(self.segment)


class Unstaged(list["Buffer"]):
    """The payload of a large call for which there was no segment; there may be one when it is sent."""


class Gathered(list["Buffer"]):
    """The payload of a large call that goes through the channel; its large bytes objects are the caller's own."""


class _Read(list["Buffer"]):
    """The payload of a result that is to be copied out of its segment, which is leased until this is gone."""

    def __init__(self, lease: ResultLease, part: memoryview) -> None:
        super().__init__((part,))
        self._lease = lease


class SegmentLeases:
    """The segments of one pool. The caller holds the pool's lock, except where it says otherwise."""

    def __init__(self, pool: _Pool, limit: int) -> None:
        """limit: bytes of all segments together; 0: no segments are used."""
        self._pool = pool
        self.arena: Arena = Arena(limit, pool.wake_pool_thread)
        self._looked_at: set[int] = set()  # numbers of the results that lie in segments and are in the user's hands
        self.expecting: int = 0  # how many further calls are taken for large ones before their size is known
        self.sizes: dict[str, tuple[int, int]] = {}  # by a task's name: bytes of its results, and as `expecting`
        _all.add(self)

    # ---- calls ---------------------------------------------------------------------------------------------

    def pickled(self, call: Call, shared: payload.SharedMain | None) -> list[Buffer]:
        """Return the payload of a call, in a segment if it is large. Without the lock.

        Raises:
            Exception: as `payload.dumps`.
        """
        if self.expecting:
            return self.dump(call, shared)
        function, arguments, keywords = call
        for argument in arguments:
            if type(argument) is bytes and len(argument) >= THRESHOLD:
                return self.dump(call, shared)
        named = None if keywords else named_calls.dumps(function, arguments)
        buffers: list[Buffer] = payload.dumps(call, shared) if named is None else [named]
        return self.stage(buffers) if len(buffers[0]) >= THRESHOLD else buffers

    def stage(self, buffers: list[Buffer]) -> list[Buffer]:
        """Return what is to take the place of a large call's payload. Without the lock."""
        self.expecting = _PATIENCE
        if not self.arena.limit:
            return Gathered(buffers)
        return self._staged_now(layout.Layout(buffers)) or Unstaged(buffers)

    def dump(self, value: object, shared: payload.SharedMain | None) -> list[Buffer]:
        """Do as `payload.dumps`, for a call that is probably large. Without the lock.

        Raises:
            Exception: as there.
        """
        large = OutOfBandPickle(value, shared)
        plan = layout.Layout(large.pieces, large.out_of_band)
        self.expecting = _PATIENCE if plan.size >= THRESHOLD else max(0, self.expecting - 1)
        if plan.size < THRESHOLD:
            return _snapshot(plan.buffers())
        staged = self._staged_now(plan) if self.arena.limit else None
        if staged is not None:
            return staged
        if plan.size <= _LATE and self.arena.limit:
            return Unstaged(_snapshot(plan.buffers()))
        return Gathered(_snapshot(large.left_out()))

    def _staged_now(self, plan: layout.Layout) -> Staged | None:
        """Stage a call in the thread that submits, unless it will wait for long: memory in use should be at work."""
        pool = self._pool
        if plan.size <= _LATE and len(pool.tasks) + len(pool.admission.waiting) >= _SOON * pool.machine.size:
            return None
        return self._staged(plan, self.arena.take_free(CALL, plan.size) or self.arena.allocate(CALL, plan.size))

    def _staged_late(self, buffers: list[Buffer]) -> Staged | None:
        """Stage a call that has waited, in the moment in which it is sent."""
        plan = layout.Layout(buffers[:1], buffers[1:])
        if plan.size > _LATE:
            return None
        segment = self.arena.take_free(CALL, plan.size)
        if segment is None and len(self.arena.segments) < _SOON * self._pool.machine.size:
            segment = self.arena.allocate(CALL, plan.size)
        return self._staged(plan, segment)

    def _staged(self, plan: layout.Layout, segment: Segment | None) -> Staged | None:
        if segment is None or segment.shared is None:
            return None
        staged = Staged(self.arena, segment, plan.reference(segment.number), plan.last_byte)
        with memoryview(segment.shared) as whole:
            plan.write(whole)
        return staged

    def post(self, link: WorkerLink, task: Task, attempt: int, deadline: float | None) -> None:
        """Send a task that has to do with segments: its payload is large, or its name is in `sizes`.

        Raises:
            OSError: the worker is gone.
        """
        if self.arena.to_unmap:
            self._tell_let_go((link,))
        if type(task.buffers) is Unstaged:
            task.buffers = self._staged_late(task.buffers) or list(task.buffers)
        account, buffers, call = link.account, task.buffers, None
        flags = large_result = 0
        if type(buffers) is Staged:
            if self._announce(link, buffers.segment):
                flags, call = framing.CALL_IN_SEGMENT, buffers.segment
            else:
                buffers = buffers.through_channel()
        lease = self._result_lease(link, task.name)
        if lease is not None and lease.segment is not None:
            flags |= framing.HAS_LEASE
            buffers = [*buffers, framing.LEASE.pack(lease.segment.number)]
        elif task.name in self.sizes:
            large_result = framing.HAS_LEASE
            buffers = [*buffers, framing.LEASE.pack(framing.NO_SEGMENT)]
        if call is not None:
            call.readers += 1
        if flags:
            account.leased[task.number] = TaskSegments(call, lease, deadline)
        link.post(task.frame(attempt, deadline, flags | large_result, buffers), large=call is None)

    def _result_lease(self, link: WorkerLink, name: str) -> ResultLease | None:
        """Return a segment for the result of a task of this name, if it is known for large ones."""
        size, _ = self.sizes.get(name, (0, 0))
        segment = self.arena.take_free(RESULT, size) if size else None
        if segment is None:
            return None
        lease = ResultLease(self.arena, segment)
        return lease if self._announce(link, segment) else None

    def _announce(self, link: WorkerLink, segment: Segment) -> bool:
        """Have the worker map a segment; return whether it has, or will have."""
        account = link.account
        if segment.number in account.mapped_sizes:
            return True
        pages = segment.size // memory.PAGE
        announcement = framing.encode(framing.MAP_SEGMENT, segment.role, pages, segment.number)
        first = () if account.expects_descriptors else (framing.encode(framing.EXPECT_DESCRIPTORS),)
        for frame in (*first, announcement):
            try:
                fd = segment.duplicate()
            except OSError:
                return False
            link.post(frame, fd)
            account.expects_descriptors = True
        account.mapped_sizes[segment.number] = segment.size
        return True

    def take_back(self, link: WorkerLink, number: int) -> None:
        """Settle a task that was sent to the worker and that it certainly will not begin."""
        leased = link.account.leased.pop(number, None)
        if leased is not None and leased.call is not None:
            leased.call.readers -= 1

    def resend_without_segment(self, link: WorkerLink, number: int) -> None:
        """Send a call anew, without its segment, which did not reach the worker: it had no descriptor left.

        In the pool thread, without the lock.
        """
        with self._pool.lock, suppress(OSError):  # the worker is gone, which its pidfd tells
            leased = link.account.leased.get(number)
            if leased is None:
                return
            if leased.call is not None:
                link.account.mapped_sizes.pop(leased.call.number, None)
            self.take_back(link, number)
            task = self._pool.tasks.get(number)
            if task is not None and type(task.buffers) is Staged:
                frame = task.frame(max(1, task.attempt), leased.deadline, 0, task.buffers.through_channel())
                link.post(frame, large=True)

    # ---- answers -------------------------------------------------------------------------------------------

    def settle(self, link: WorkerLink, frame: Frame) -> None:
        """Settle what a task had of segments; from now on the frame's buffers are those of the result.

        In the pool thread or the leader, without the lock.

        Raises:
            ProtocolError: the worker's loop cannot have written that.
        """
        size = sum(map(len, frame.buffers))
        if frame.slot & framing.SEGMENT_FLAGS:
            with self._pool.lock:
                size = self._settle(link, frame) or size
        task = self._pool.tasks.get(frame.value)
        if task is not None:
            self._learn(task.name, frame.kind, size)

    def _settle(self, link: WorkerLink, frame: Frame) -> int:
        """Return the size of a result in a segment; 0: it is not in one."""
        account = link.account
        leased = account.leased.pop(frame.value, None)
        lease = None if leased is None else leased.result
        if leased is not None and leased.call is not None:
            leased.call.readers -= 1
            leased.call.not_reusable = leased.call.not_reusable or not frame.slot & framing.CALL_SEGMENT_FREE
        if frame.slot & framing.LEASE_NOT_RECEIVED and lease is not None and lease.segment is not None:
            account.mapped_sizes.pop(lease.segment.number, None)
        if not frame.slot & framing.RESULT_IN_SEGMENT:
            return 0
        if lease is None:
            raise framing.ProtocolError("of a result in a segment that was not lent to it")
        reference = frame.buffers[0]
        size = layout.size_of(reference)
        try:
            frame.buffers = self._opened(lease, reference)
        except MemoryError:
            frame.buffers = framing.MissingBuffers(size)
        return size

    def _opened(self, lease: ResultLease, reference: Buffer) -> list[Buffer]:
        """Return the buffers of a result in a segment, which is free when nobody looks at them any more."""
        segment = lease.segment
        if segment is None or segment.shared is None or layout.number_of(reference) != segment.number:
            raise framing.ProtocolError("of a result in a segment that was not lent to it")
        try:
            pickled, *out_of_band = layout.parts(reference, memoryview(segment.shared))
        except ValueError:
            raise framing.ProtocolError("of a result that is larger than the segment that was lent to it") from None
        if not out_of_band:
            return _Read(lease, pickled)
        try:
            if len(self._looked_at) >= _MOST_LOOKED_AT:
                raise OSError
            mapping = memory.map_file(segment.fileno(), segment.size, memory.PRIVATE)
        except OSError:
            return [bytearray(part) for part in (pickled, *out_of_band)]
        mapping.when_unmapped = self.arena.hold(segment, self._looked_at)
        lease.segment = None
        return [*layout.parts(reference, memoryview(mapping))]

    def _learn(self, name: str, kind: int, size: int) -> None:
        """Learn from the size of a result which segment to lease to the next task of its name."""
        if kind != framing.RESULT:
            return
        before, patience = self.sizes.get(name, (0, 0))
        if size >= THRESHOLD:
            if len(self.sizes) >= _MOST_NAMES:
                self.sizes.clear()
            wanted = max(size, before - before // 8)
            self.sizes[name] = wanted, _PATIENCE
            if self.arena.limit:
                self.arena.prepare(RESULT, wanted)
        elif patience:
            self.sizes[name] = before, patience - 1
        else:
            self.sizes.pop(name, None)

    # ---- the pool's life -----------------------------------------------------------------------------------

    def release_idle(self, now: float, deadline: float | None) -> float | None:
        """Let go of what is idle; return when to look again, if that is before the deadline. In the pool thread.

        There is nothing to do while `arena` has neither segments nor anything that was let go of.
        """
        due = self.arena.free_idle(now)
        if self.arena.to_unmap:
            idle = (slot for slot in self._pool.machine.slots if slot.state is State.IDLE)
            self._tell_let_go([self._pool.workers[slot.index] for slot in idle if slot.index in self._pool.workers])
        return due if deadline is None else deadline if due is None else min(due, deadline)

    def _tell_let_go(self, links: Sequence[WorkerLink]) -> None:
        """Have these workers unmap the segments that are used no more.

        They have no task: one that died in the middle of a task, with anything unread behind it, would be taken for
        one that never read the task.
        """
        to_unmap = self.arena.to_unmap
        for link in links:
            for number in to_unmap & link.account.mapped_sizes.keys():
                del link.account.mapped_sizes[number]
                with suppress(OSError):  # it is gone
                    link.post(framing.encode(framing.UNMAP_SEGMENT, value=number))
        still_mapped: set[int] = set().union(*(link.account.mapped_sizes for link in self._pool.workers.values()))
        to_unmap &= still_mapped

    def close(self) -> None:
        """Let go of everything but what users look at."""
        self.arena.close()

    def abandon_in_forked_child(self) -> None:
        """Let go of the copies in a forked child. Takes no lock."""
        self.sizes.clear()
        self.arena.abandon_in_forked_child()


def _snapshot(buffers: list[Buffer]) -> list[Buffer]:
    """Return the buffers, and copies of those that the caller of submit may change from now on."""
    return [buffer if type(buffer) is bytes else bytearray(buffer) for buffer in buffers]


def _note_fork() -> None:
    for leases in list(_all):
        leases.arena.note_fork()


# Before, for what is let go of meanwhile by other threads, and after, for what they got meanwhile.
os.register_at_fork(before=_note_fork, after_in_parent=_note_fork)
