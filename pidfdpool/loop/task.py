"""What the host keeps of an accepted task until its future is resolved, and what it needs of a future.

Made by the thread that submits; changed under the pool's lock only.
"""

from __future__ import annotations

from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from pidfdpool.loop.chunk_calls import Chunk
from pidfdpool.process import describe
from pidfdpool.serialization import kept_definitions, payload
from pidfdpool.serialization.payload import NEEDS_SCRIPT
from pidfdpool.transport import framing
from pidfdpool.typed import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from pidfdpool.deaths import Death
    from pidfdpool.loop.outcomes import Outcome
    from pidfdpool.scheduler.policy import Policy
    from pidfdpool.transport.framing import Buffer, Frame, Lean

    WorkerName: TypeAlias = tuple[int, int, int | None]  # slot, generation, pid
    # What a future is to be resolved with: what a worker wrote, an error of the pool's own, or None: cancelled.
    Verdict: TypeAlias = "Frame | Lean | Outcome | BaseException | None"


class Recipient(Protocol):
    """Who gets the outcome of a task: a future, or what stands for one. Resolved once, never with the pool's lock."""

    def _attach(self, pool: Any, number: int, cancel_kills: bool, /) -> None:
        """Take note of the task and of its `Pool`, which only recipients know by type; with the lock."""

    def _is_wanted(self) -> bool:
        """Return whether anybody still waits for the outcome; with the lock."""

    def _begin(self) -> bool:
        """Return whether the task is still wanted, now that a worker is to have it; with the lock."""

    def _note_attempt(self, worker: WorkerName, attempt: int, at: float, /) -> None:
        """Take note of the worker, and of when it was given the task (time.time()); with the lock."""

    def _has_callbacks(self) -> bool:
        """Return whether resolving it calls something of the user's; without the lock."""

    def _is_observed(self) -> bool:
        """Return whether anybody could notice the outcome who does not wait for it as the leader does; any thread."""

    def _mark_cancelled(self) -> bool:
        """Take note that the task is cancelled, if it waits, but notify nobody yet; with the lock."""

    def _resolve(self, result: Any, error: BaseException | None, /) -> None:
        """Take the outcome."""

    def _resolve_cancelled(self) -> None:
        """Take note that the task was cancelled and does not run."""

    def _fail_in_forked_child(self, error: BaseException, /) -> None:
        """Take note that the task is another process's."""


class Task:
    """What the host keeps of an accepted task until its future is resolved.

    `verdict` is what the future is to be resolved with: set under the pool's lock, used without it.
    `queued_at` is when it was accepted, as time.monotonic() tells it; perhaps not set while nobody observes the pool.
    `worker` is the one that was sent its last attempt, or began it, as far as is known. It is not set before that.
    """

    __slots__ = (
        "attempt", "begun", "buffers", "chunk", "deaths", "definitions", "flags", "future", "held", "number",
        "policy", "queued_at", "verdict", "what", "worker",
    )  # fmt: skip

    verdict: Verdict
    queued_at: float
    worker: WorkerName

    def __init__(
        self,
        number: int,
        future: Recipient,
        buffers: list[Buffer],
        what: object,
        policy: Policy,
        held: object = None,
    ) -> None:
        flags = 0
        chunk: Chunk | None = None
        if buffers[0][-1] == NEEDS_SCRIPT if type(buffers) is list else payload.needs_script(buffers):
            flags = framing.NEEDS_SCRIPT
        if type(what) is Chunk:
            chunk = what
            if chunk.of_script:
                flags = framing.NEEDS_SCRIPT
        if not policy.kill_descendants:
            flags |= framing.SPARE_DESCENDANTS
        self.chunk: Chunk | None = chunk
        self.flags: int = flags  # of its frame
        self.number: int = number
        self.future: Recipient = future
        self.buffers: list[Buffer] = buffers
        self.what: object = what  # the function, or its name; or which calls of a map
        self.policy: Policy = policy
        # These two live for as long as the task; see `held_arguments`.
        self.held: object = held
        self.definitions: list[Any] | None = (
            kept_definitions.definitions_for_task() if kept_definitions.large else None
        )
        self.begun: bool = False
        self.attempt: int = 0
        self.deaths: tuple[Death, ...] = ()

    @property
    def name(self) -> str:
        """The name of the function that it calls."""
        return name_of(self.what)

    @property
    def label(self) -> str:
        """What to call the task in messages."""
        return self.name if self.chunk is None else self.chunk.label

    @property
    def follows(self) -> bool:
        """Whether it goes on with what another task has left."""
        return self.chunk is not None and self.chunk.terms is not None and self.chunk.terms.follows

    @property
    def needs_script(self) -> bool:
        """Whether it goes only to a worker that has what running the host's script again makes."""
        return bool(self.flags & framing.NEEDS_SCRIPT)

    @property
    def heavy(self) -> bool:
        """Whether its call is large: it lies in a segment, or is to."""
        return type(self.buffers) is not list

    def frame(
        self, attempt: int, deadline: float | None, flags: int = 0, buffers: list[Buffer] | None = None
    ) -> list[Buffer]:
        """Return the frame that hands this attempt to a worker. buffers: what to send in the place of the call."""
        if buffers is None:
            buffers = self.buffers
        if attempt > framing.MAX_ATTEMPTS:
            attempt = framing.MAX_ATTEMPTS
        if deadline is not None:
            flags |= framing.HAS_DEADLINE
            buffers = [*buffers, framing.DEADLINE.pack(deadline)]
        return framing.encode(framing.TASK, flags | self.flags, attempt, self.number, buffers)


def nameable(function: object) -> object:
    """Return what a task keeps of a function, to be named by: itself, or its name if it may be something large."""
    kind = type(function)
    if kind is FunctionType or kind is Chunk:
        return function
    # A method of a list is of this type, too, and holds the list.
    if kind is BuiltinFunctionType and type(function.__self__) is ModuleType:  # type: ignore[attr-defined]
        return function
    return name_of(function)


def unwrapped(
    chunk: Chunk, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """Return what is sent of a call of a chunk: the plain function that makes them, and nothing of the host's."""
    return chunk.call, chunk.bound + args, kwargs


def name_of(what: object) -> str:
    """Return what to call a task that calls this function, or of which this is kept (`nameable`)."""
    if type(what) is str:
        return what
    return what.name if type(what) is Chunk else describe.name_of(what)
