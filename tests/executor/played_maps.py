"""An executor without workers, for tests of maps: it takes the tasks, and the test says what becomes of each."""

from __future__ import annotations

import pickle
import struct
import types
import weakref

from pidfdpool import Policy, WorkerCrashed
from pidfdpool.executor.adaptive_map import AdaptiveMap
from pidfdpool.executor.bounded_map import BoundedMap
from pidfdpool.executor.futures import Future
from pidfdpool.executor.map_pieces import Kind
from pidfdpool.executor.map_request import MapRequest
from pidfdpool.serialization import payload
from pidfdpool.transport.published import Published
from pidfdpool.worker.chunk import call_all
from pidfdpool.worker.chunk_publishing import FailedCall, call_alone, call_published

KINDS = {call_all: Kind.TOGETHER, call_published: Kind.EACH, call_alone: Kind.ALONE}
TINY, LONG = 1e-6, 1e-3  # seconds


class Task:
    """One chunk that was submitted. through: "executor" or "pool"."""

    def __init__(self, future, chunk, arguments, policy, through):
        self.future, self.chunk, self.arguments = future, chunk, arguments
        self.policy, self.through = policy, through
        self.kind = KINDS[chunk.call]
        self.calls = list(payload.loads([buffer.raw() for buffer in arguments[1]]))
        self.starred = arguments[3] if self.kind is Kind.EACH else arguments[2]

    def answer(self, values=None, *, seconds=TINY, failure=None, raised=()):
        """Have a worker return these values, or for each call the call itself. failure: what a call raised."""
        values = self.calls if values is None else values
        if self.kind is Kind.EACH:
            ends, data = packed(values)
            made = struct.pack(f"@{len(ends)}I", *ends), data, None, raised, seconds * len(values)
        elif self.kind is Kind.ALONE:
            made = values[0], seconds
        else:
            error = None if failure is None else payload.dump_error(failure)
            made = (list(values),), error, seconds * len(self.calls)
        self.future._resolve(made, None)

    def die(self, values=(), *, begun=None):
        """Have the worker die in the call behind these results, or when so many had begun. Return the error."""
        error = WorkerCrashed("it died", task=self.chunk.label, task_id=1, attempt=1)
        if self.kind is Kind.EACH:
            self.chunk.take(Published(1, len(values) + 1 if begun is None else begun, *packed(values)))
            error.task = self.chunk.label
        error.chunk = self.chunk
        self.future._resolve(None, error)
        return error


def packed(values):
    ends, data = [], b""
    for value in values:
        if isinstance(value, BaseException):
            value = FailedCall(payload.dump_error(value))
        data += pickle.dumps(value, 5)
        ends.append(len(data))
    return ends, data


class Pool:
    """What a map has of the pool itself. holds: the maps that it may not end before."""

    def __init__(self, played):
        self.recipe = types.SimpleNamespace(shared_main=None)
        self.machine = types.SimpleNamespace(broken=None)
        self.holds, self._played = [], played

    def hold(self, chunks):
        self.holds.append(chunks)

    def let_go(self, chunks):
        self.holds.remove(chunks)

    def _submit_for(self, future, policy, chunk, arguments, keywords, *, wait):
        assert (keywords, wait) == ({}, True)
        self._played.note(Task(future, chunk, arguments, policy, "pool"))

    def submit(self, chunk, *arguments):
        future = Future()
        self._played.note(Task(future, chunk, arguments, self._played._policy, "pool"))
        return future


class Played:
    """Takes tasks in the place of an executor.

    tasks: those that were submitted. looks: how often a map has looked whether the executor is still there.
    refusal: raised by whatever submits.
    """

    def __init__(self, workers=2, *, sizes_chunks=True, **options):
        self._policy = Policy(workers, **options)
        self._workers, self._sizes = workers, sizes_chunks
        self.tasks, self.maps, self.looks, self.refusal, self.is_there = [], [], 0, None, True
        self.pool = Pool(self)
        self.lost = None

    def note(self, task):
        if self.refusal is not None:
            raise self.refusal
        self.tasks.append(task)

    def submit(self, chunk, *arguments):
        future = Future()
        self.note(Task(future, chunk, arguments, self._policy, "executor"))
        return future

    def _submit_for(self, future, policy, chunk, arguments, keywords, *, wait):
        assert (keywords, wait) == ({}, True)
        self.note(Task(future, chunk, arguments, policy, "executor"))

    def _register_map(self, registered):
        if self.refusal is not None:
            raise self.refusal
        self.maps.append(registered)
        return self._workers, self.pool

    def _submitter_ref(self, lost=None):
        self.lost = lost

        def find():
            self.looks += 1
            return self if self.is_there else None

        return find

    def _sizes_chunks(self):
        return self._sizes

    # ---- for the test --------------------------------------------------------------------------------------

    def sizes(self, since=0):
        return [len(task.calls) for task in self.tasks[since:]]

    def calls(self, since=0):
        return [call for task in self.tasks[since:] for call in task.calls]

    def unanswered(self):
        return [task for task in self.tasks if not task.future.done()]

    def answer(self, seconds=TINY, count=None):
        """Have tasks end well, in their order: so many, or all, also those that are submitted meanwhile."""
        while (left := self.unanswered()) and count != 0:
            left[0].answer(seconds=seconds)
            count = None if count is None else count - 1


class OneByOne:
    """Takes the tasks of maps that submit as the standard library does, and makes a call when the test says so.

    refused_at: how many it takes before it refuses one with `refusal`.
    """

    def __init__(self, *, sizes_chunks=False, refused_at=None, refusal=None, **options):
        self._policy, self._sizes = Policy(2, **options), sizes_chunks
        self.tasks, self.refused_at, self.refusal = [], refused_at, refusal or LookupError("refused")

    def submit(self, function, *arguments):
        if len(self.tasks) == self.refused_at:
            raise self.refusal
        self.tasks.append((Future(), function, arguments))
        return self.tasks[-1][0]

    def _sizes_chunks(self):
        return self._sizes

    def _submitter_ref(self, lost=None):
        return weakref.ref(self, lost)

    def end(self, at, error=None):
        future, function, arguments = self.tasks[at]
        result = None
        if error is None:
            try:
                result = function(*arguments)
            except Exception as raised:
                error = raised
        future._resolve(result, error)


class Numbers:
    """Yields numbers from 0, and then raises. taken: how often it was asked. Who asks without end fails."""

    def __init__(self, end=None, error=None):
        self.end, self.error, self.taken = end, error, 0

    def __iter__(self):
        return self

    def __next__(self):
        self.taken += 1
        assert self.taken < 100_000
        if self.end is not None and self.taken > self.end:
            raise self.error or StopIteration
        return self.taken - 1


def bounded(played, buffersize, *iterables, function=abs, ordered=True, **how):
    """Begin a map with a buffersize; return it."""
    return BoundedMap(played, MapRequest(function, iterables, **how), buffersize, ordered=ordered)


def adaptive(played, *iterables, function=abs, ordered=True, **how):
    """Begin a map that knows all its calls; return it."""
    return AdaptiveMap(played, MapRequest(function, iterables, **how), ordered=ordered)
