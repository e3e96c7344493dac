"""The chunks of a map whose sizes the pool chooses: how they are submitted, and how their results are taken.

`adaptive_map` and `bounded_map` decide when a chunk is submitted, and which calls it has.
"""

from __future__ import annotations

import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from pidfdpool.errors import PayloadError
from pidfdpool.executor.unsendable import describe_pickling_error
from pidfdpool.loop import outcomes
from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.process import describe, interruptible
from pidfdpool.serialization import kept_definitions, payload
from pidfdpool.serialization.out_of_band import OutOfBandPickle
from pidfdpool.typed import Protocol
from pidfdpool.worker.chunk import call_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from pidfdpool.executor.open_maps import Map
    from pidfdpool.loop.pool import Pool
    from pidfdpool.transport.framing import Buffer

CHUNKS_PER_WORKER = 2  # one that runs, one that waits


class Submitter(Protocol):
    """What submits calls: an executor, or a view of one with options."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call."""

    def _register_map(self, adaptive_map: Map) -> tuple[int, Pool]:
        """Register a map with calls to submit. Return the number of workers, and the pool."""


class UnsentCall:
    """Takes the place of a chunk's future for a call that was not submitted, because it does not pickle."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def done(self) -> bool:
        """Return True: nobody has to wait for the error."""
        return True


class Turns:
    """Has one thread at a time submit chunks of a map. Thread-safe.

    The pool thread never waits for its turn: it leaves a note for the thread that has the turn, and that thread looks
    for a note when its turn is over.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # it tells whether a signal handler has interrupted the owner's turn
        self._context = copy_context()  # for arguments whose own code pickles them, later and in the pool thread
        self.wanted: bool = False  # the note: there is something to submit

    def take(self, submit: Callable[[], None], failed: Callable[[BaseException], None], *, wait: bool) -> bool:
        """Call `submit` while no other thread does that. Return whether this thread had the turn.

        If another thread has it: do nothing, or with `wait` wait for it. If this thread itself was interrupted
        in its turn (by a signal handler, say), it goes on with it afterwards. failed: called with what `submit`
        raises, because calls may be lost then, and the consumer must not miss that.
        """
        lock = self._lock
        if lock._is_owned():  # type: ignore[attr-defined]
            self.wanted = True
            return False
        had = False
        while (wait or self.wanted) and (lock.acquire(False) or (wait and interruptible.acquire(lock))):
            wait, self.wanted, had = False, False, True
            try:
                self._context.run(submit)
            except BaseException as error:
                failed(error)
                raise
            finally:
                lock.release()
        return had

    def forget_in_forked_child(self) -> None:
        """Forget whose turn it is, in a forked child: that thread was perhaps not copied."""
        self._lock = threading.RLock()


class ChunkSubmission:
    """Makes tasks of one map's calls. Not thread-safe."""

    def __init__(self, function: Callable[..., Any], *, starred: bool, pool: Pool) -> None:
        """starred: each call is a tuple of arguments; otherwise it is the one argument."""
        self._function = function
        self._name = describe.name_of(function)
        self._starred = starred
        self._shared = pool.recipe.shared_main
        self._pickled_function: list[Buffer] = []
        self._definitions: list[Any] = []  # definitions of the script that its calls may use

    def pickle_function(self) -> UnsentCall | None:
        """Pickle the function, once for all calls. Return what takes the place of the calls if it does not pickle."""
        try:
            self._pickled_function = [payload.dumps(self._function, self._shared)[0]]
            self._definitions = kept_definitions.definitions_for_task()
        except Exception as error:
            return UnsentCall(self._pickling_error(error, ()))
        return None

    def submit(
        self,
        submit: Callable[..., Future[Any]],
        first: int,
        calls: Sequence[Any],
        enter: Callable[[Future[Any] | UnsentCall, Sequence[Any], int], None],
    ) -> None:
        """Submit calls as one task.

        If one of them does not pickle, each becomes a task of its own, because the others are to run.

        Args:
            submit: what submits a task.
            first: the index in the map of the first of the calls.
            calls: the calls.
            enter: called with the future of each task, its calls, and the bytes of their arguments.

        Raises:
            PoolBroken, RuntimeError: as `submit`.
        """
        try:
            buffers = OutOfBandPickle(calls, self._shared).buffers()
        except Exception as error:
            if len(calls) == 1:
                unsent = UnsentCall(self._pickling_error(error, calls[0] if self._starred else (calls[0],)))
                enter(unsent, calls, 0)
                return
            buffers = None
        if buffers is None:
            for index in range(len(calls)):
                self.submit(submit, first + index, calls[index : index + 1], enter)
            return
        of_script = payload.needs_script(self._pickled_function) or payload.needs_script([buffers[0].raw()])
        chunk = Chunk(call_all, self._name, first, calls, starred=self._starred, of_script=of_script)
        future = submit(chunk, self._pickled_function[0], buffers, self._starred)
        enter(future, calls, sum(buffer.raw().nbytes for buffer in buffers))

    def _pickling_error(self, error: Exception, arguments: tuple[Any, ...]) -> Exception:
        return describe_pickling_error(error, self._function, arguments, {}, self._shared)


def unpack_results(outcome: tuple[Any, list[Buffer] | None, float]) -> tuple[list[Any], BaseException | None]:
    """Return the results of a chunk up to its first failure, and that failure.

    outcome: what the worker returned: the results, the failure as a pickle, and the seconds that the calls took.

    Raises:
        PayloadError: the results cannot be rebuilt.
    """
    results, failure, _ = outcome
    if type(results) is tuple:  # they were rebuilt when they arrived
        return results[0], None if failure is None else payload.load_error(failure)
    try:
        made = outcomes.load_result(results)
    except PayloadError:
        from pidfdpool.serialization import salvage

        rest = salvage.load_items(results, in_host=True)
        at = next((at for at, result in enumerate(rest or ()) if type(result) is salvage.FailedItem), None)
        if rest is None or at is None:
            raise
        return rest[:at], outcomes.unreadable_result(rest[at].error)
    return made, None if failure is None else payload.load_error(failure)
