"""What makes the pool fast, each trick with the way to leave it out, so that it shows what it is worth.

Some are options of the constructor. The others are left out by replacing a name of the pool's own, in the process of
one measurement only. A name that does not exist any more is an error: the row would show the complete pool.

What template and workers do can be left out in the fork way only, in which they are copies of that process.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from io import BytesIO
from math import inf
from typing import Any


class StaleTrickError(Exception):
    """A trick names something that the pool does not have."""


@dataclass(frozen=True)
class Patch:
    """A name in a module, possibly an attribute of a class there, and what to put in its place.

    around: `instead` makes it of what is there.
    """

    module: str
    path: str
    instead: Any
    around: bool = False

    def target(self) -> tuple[Any, str]:
        """Return what has the name as an attribute, and the attribute's name.

        Raises:
            StaleTrickError: there is no such name, or it is something of another kind.
        """
        *outer, name = self.path.split(".")
        try:
            owner = import_module(self.module)
            for part in outer:
                owner = getattr(owner, part)
            now = getattr(owner, name)
        except (ImportError, AttributeError) as error:
            raise StaleTrickError(f"{self.module} has no {self.path}: {error}") from None
        if _kind(now) != _kind(self.instead):
            raise StaleTrickError(f"{self.path} of {self.module} is a {_kind(now)} now, not a {_kind(self.instead)}")
        return owner, name

    def apply(self) -> None:
        """Replace it in this process."""
        owner, name = self.target()
        setattr(owner, name, self.instead(getattr(owner, name)) if self.around else self.instead)


def _kind(value: Any) -> str:
    return "function" if callable(value) else type(value).__name__


@dataclass(frozen=True)
class Trick:
    """One trick.

    Args:
        name: what is left out, for `--contender`.
        title: the same, for the tables.
        options: arguments of the constructor without it.
        patches: what is replaced without it.
        chosen: an option by which it came; it is no trick of a pool that does not have that.
        shown_by: the scenarios of `ablation` in which it matters.
        beside: the contender that is the same pool with it.
    """

    name: str
    title: str
    shown_by: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    patches: tuple[Patch, ...] = ()
    chosen: str | None = None
    beside: str = "ours"

    @property
    def exists(self) -> bool:
        """Whether this pool has it."""
        return self.chosen is None or self.chosen in options()

    def leave_out(self) -> None:
        """Have pools of this process do without it, as far as that is not said by the options."""
        for name in self.options:
            if name not in options():
                raise StaleTrickError(f"the constructor has no {name}")
        for patch in self.patches:
            patch.apply()


def options() -> Mapping[str, Any]:
    """Return the constructor's options by name; none of another build that keeps them elsewhere."""
    try:
        known: Mapping[str, Any] = import_module("pidfdpool.scheduler.policy").PoolOptions.__annotations__
    except (ImportError, AttributeError):
        return {}
    return known


def _never(*_: Any) -> bool:
    return False


def _nobody(*_: Any) -> None:
    return None


def _no_chunks(*_: Any, **__: Any) -> None:
    return None


def _always(*_: Any) -> bool:
    return True


def _later(core: Any) -> bool:
    return core.thread.started and not core.thread.does_its_work


def _make_all(future: Any) -> None:
    for name in ("_waiters", "_done_callbacks", "_condition"):
        getattr(future, name)


def _wake_for_each(mailbox: Any, waiter: Any, result: Any, error: BaseException | None) -> None:
    mailbox._outcomes.append((waiter, result, error))
    waiter.get_loop().call_soon_threadsafe(mailbox._deliver)


def _sockets() -> tuple[int, int]:
    reader, writer = socket.socketpair()
    return reader.detach(), writer.detach()


def _nothing_done(*_: Any) -> list[Any]:
    return []


def _only_without_rules(make: Any) -> Any:
    def made(submitter: Any, request: Any, *, ordered: bool) -> Any:
        bounded = request.chunksize is not None or request.buffersize is not None
        return None if bounded or submitter._policy.counts_calls else make(submitter, request, ordered=ordered)

    return made


def _all_in_one(pickled: Any) -> list[Any]:
    return [b"".join(pickled.pieces), *pickled.out_of_band]


class _Elsewhere(BytesIO):
    """Memory for a buffer that is copied when all of it has come."""

    def __init__(self, length: int) -> None:
        super().__init__(bytes(length))

    def getvalue(self) -> bytes:
        with self.getbuffer() as contents:
            return bytes(contents)


def _wait_for_launcher(connection: Any, launcher: Any) -> None:
    connection.awaited = launcher
    os.waitpid(launcher.pid, 0)


def _waiting_for_hello(start: Callable[..., Any]) -> Callable[..., Any]:
    def start_and_wait(*given: Any, **options: Any) -> Any:
        connection = start(*given, **options)
        if connection.awaited is not None:
            import_module("pidfdpool.template.client").finish(connection)
        return connection

    return start_and_wait


def _close_each(ranges: Any) -> None:
    close = import_module("pidfdpool.process.native").close
    for first, end in ranges._ends.items():
        for fd in range(first, end):
            close(fd)


_SCHEDULER = "pidfdpool.scheduler"
_FAST_PATH = f"{_SCHEDULER}.fast_path"
_DECISIONS = "pidfdpool.loop.decisions"
_CLIENT = "pidfdpool.template.client"
_EXHAUSTED = "without-segments"  # the pool while all of its shared memory is in use

TRICKS = tuple(
    trick
    for trick in (
        Trick("tasks-ahead", "tasks ahead", ("throughput", "busy", "asyncio"), {"prefetch": 0}),
        Trick(
            "taking-back",
            "taking back for idle workers",
            ("unequal",),
            patches=(Patch(f"{_SCHEDULER}.prefetch", "Prefetcher.rebalance", _nobody),),
        ),
        Trick(
            "tasks-in-lots",
            "small tasks sent in lots",
            ("throughput", "latency"),
            patches=(Patch(f"{_SCHEDULER}.prefetch", "MAX_BATCH", 0),),
        ),
        Trick(
            "tasks-in-one-write",
            "many tasks in one write",
            ("throughput", "busy"),
            patches=(Patch("pidfdpool.loop.dispatch", "AT_ONCE", 1),),
        ),
        Trick(
            "answers-in-one-read",
            "many answers in one read",
            ("throughput", "asyncio"),
            patches=(Patch("pidfdpool.loop.answers", "_READ_SIZE", 64),),
        ),
        Trick(
            "answers-through-a-pipe",
            "answers through a pipe, not a socket",
            ("throughput",),
            patches=(Patch("pidfdpool.loop.answers", "new_pipe", _sockets),),
        ),
        Trick(
            "lean-futures",
            "lean futures",
            ("throughput",),
            patches=(Patch("pidfdpool.executor.futures", "Future.__init__", _make_all),),
        ),
        Trick(
            "kept-picklers",
            "picklers used again",
            ("throughput",),
            patches=(Patch("pidfdpool.serialization.picklers", "_MAX_KEPT", -1),),
        ),
        Trick(
            "named-calls",
            "calls sent by the function's name",
            ("throughput", "latency"),
            patches=(Patch("pidfdpool.serialization.named_calls", "dumps", _nobody),),
        ),
        Trick(
            "plain",
            "passing over what is plain",
            ("throughput", "echo-small"),
            patches=(Patch("pidfdpool.serialization.plain_data", "is_plain", _never),),
        ),
        Trick(
            "direct-writes",
            "writes by who submits",
            ("latency", "throughput"),
            patches=(
                Patch(_FAST_PATH, "FastPath.hand_over", _nobody),
                Patch(_DECISIONS, "Decisions.defers", property(_later)),
                Patch("pidfdpool.process.interruptible", "handlers_may_raise", _always),
            ),
        ),
        Trick(
            "leader", "the leader", ("latency",), patches=(Patch(_DECISIONS, "Decisions.may_lead", property(_never)),)
        ),
        Trick("spinning", "spinning", ("latency",), {"spin": 0}),
        Trick(
            "leaders-spinning",
            "spinning of the leader",
            ("latency",),
            patches=(Patch("pidfdpool.process.spinning", "LEADER_LIMIT", 0.0),),
        ),
        Trick(
            "short-ways",
            "the short ways",
            ("throughput", "busy"),
            patches=(
                Patch(_FAST_PATH, "FastPath.enqueue", _never),
                Patch(_FAST_PATH, "FastPath.hand_over", _nobody),
                Patch(_FAST_PATH, "FastPath.take_answers", _never),
            ),
        ),
        Trick(
            "chunks",
            "chunks of map",
            ("map", "unequal-map"),
            patches=(Patch("pidfdpool.executor.mapping", "in_chunks_of_the_pool", _no_chunks),),
        ),
        Trick(
            "mailbox",
            "one wake-up of the event loop for many answers",
            ("asyncio",),
            patches=(Patch("pidfdpool.executor.async_calls", "Mailbox.post", _wake_for_each),),
        ),
        Trick(
            "reading-loop",
            "reading by the event loop",
            ("asyncio",),
            patches=(Patch("pidfdpool.loop.loop_reader", "LoopReader.watch", _never),),
        ),
        Trick(
            "lying-answers",
            "answers that lie until the next wait",
            ("asyncio", "echo-small"),
            patches=(Patch("pidfdpool.loop.watchdog", "Watchdog.stands_back", _never),),
        ),
        Trick("segments", "shared memory", ("echo", "echo-small"), {"segment_memory": 0}, chosen="segment_memory"),
        Trick(
            "bounded-chunks",
            "chunks of a map with a buffersize",
            ("bounded",),
            patches=(Patch("pidfdpool.executor.mapping", "CHUNKS_PER_WORKER", 1_000_000_000),),
        ),
        Trick(
            "rules-in-chunks",
            "chunks of a map with a timeout",
            ("timed",),
            patches=(Patch("pidfdpool.executor.mapping", "in_chunks_of_the_pool", _only_without_rules, around=True),),
        ),
        Trick(
            "published",
            "publishing results that nobody asked to be published, which is for a worker's death",
            ("unequal-map",),
            patches=(Patch("pidfdpool.executor.chunk_sizes", "PUBLISHED_FROM", inf),),
        ),
        Trick(
            "short-cancel",
            "cancelling without a decision",
            ("cancel",),
            patches=(Patch("pidfdpool.loop.pool", "Pool._cancel_quickly", _nothing_done),),
        ),
        Trick(
            "cancel-slices",
            "cancelling in slices at the end",
            ("drop",),
            patches=(Patch(f"{_SCHEDULER}.tasks", "SLICE", 1_000_000_000),),
        ),
        Trick(
            "left-out",
            "leaving large bytes out of the pickle",
            ("argument",),
            {"segment_memory": 0},
            (Patch("pidfdpool.serialization.out_of_band", "OutOfBandPickle.left_out", _all_in_one),),
            chosen="segment_memory",
            beside=_EXHAUSTED,
        ),
        Trick(
            "in-place",
            "receiving large bytes in their place",
            ("result",),
            {"segment_memory": 0},
            (Patch("pidfdpool.transport.framing", "reserve_bytes", _Elsewhere),),
            chosen="segment_memory",
            beside=_EXHAUSTED,
        ),
        Trick(
            "large-pieces",
            "4 MB of large bytes in one call",
            ("argument", "result"),
            {"segment_memory": 0},
            (Patch("pidfdpool.transport.channel", "_AT_ONCE", 1 << 16),),
            chosen="segment_memory",
            beside=_EXHAUSTED,
        ),
        Trick(
            "small-launcher",
            "the small launcher",
            ("start",),
            patches=(Patch(_CLIENT, "_spawn_detached", _nobody),),
        ),
        Trick(
            "waiting-requests",
            "requests that wait in the channel",
            ("start",),
            patches=(Patch(_CLIENT, "start", _waiting_for_hello, around=True),),
        ),
        Trick(
            "early-requests",
            "asking for workers while the launcher exits",
            ("start",),
            patches=(Patch("pidfdpool.template.handshake", "expect_hello", _wait_for_launcher),),
        ),
        Trick(
            "few-modules",
            "a first call for which few modules are looked at",
            ("start",),
            patches=(Patch("pidfdpool.serialization.importable", "_few_looked_at", True),),
        ),
        Trick(
            "descriptor-ranges",
            "closing others' handles by ranges",
            ("many",),
            patches=(Patch("pidfdpool.template.worker_fork", "DescriptorRanges.close_in_worker", _close_each),),
            beside="ours-fork",
        ),
    )
    if trick.exists
)
