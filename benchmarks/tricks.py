"""What makes the pool fast, each trick with the way to leave it out, so that it shows what it is worth.

Some are options of the constructor. The others are left out by replacing a name of the pool's own, in the process of
one measurement only. A name that does not exist any more is an error: the row would show the complete pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any


class StaleTrickError(Exception):
    """A trick names something that the pool does not have."""


@dataclass(frozen=True)
class Patch:
    """A name in a module, possibly an attribute of a class there, and what to put in its place."""

    module: str
    path: str
    instead: Any

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
        setattr(owner, name, self.instead)


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
    """

    name: str
    title: str
    options: Mapping[str, Any] = field(default_factory=dict)
    patches: tuple[Patch, ...] = ()
    chosen: str | None = None

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


def _later(core: Any) -> bool:
    return core.thread.started and not core.thread.does_its_work


def _make_all(future: Any) -> None:
    for name in ("_waiters", "_done_callbacks", "_condition"):
        getattr(future, name)


def _wake_for_each(mailbox: Any, waiter: Any, result: Any, error: BaseException | None) -> None:
    mailbox._outcomes.append((waiter, result, error))
    waiter.get_loop().call_soon_threadsafe(mailbox._deliver)


_SCHEDULER = "pidfdpool.scheduler"
_FAST_PATH = f"{_SCHEDULER}.fast_path"
_DECISIONS = "pidfdpool.loop.decisions"

TRICKS = tuple(
    trick
    for trick in (
        Trick("tasks-ahead", "tasks ahead", {"prefetch": 0}),
        Trick(
            "taking-back",
            "taking back for idle workers",
            patches=(Patch(f"{_SCHEDULER}.prefetch", "Prefetcher.rebalance", _nobody),),
        ),
        Trick(
            "tasks-in-lots", "small tasks sent in lots", patches=(Patch(f"{_SCHEDULER}.prefetch", "MAX_BATCH", 0),)
        ),
        Trick(
            "tasks-in-one-write",
            "many tasks in one write",
            patches=(Patch("pidfdpool.loop.dispatch", "AT_ONCE", 1),),
        ),
        Trick(
            "answers-in-one-read",
            "many answers in one read",
            patches=(Patch("pidfdpool.transport.channel", "_READ_SIZE", 64),),
        ),
        Trick(
            "lean-futures",
            "lean futures",
            patches=(Patch("pidfdpool.executor.futures", "Future.__init__", _make_all),),
        ),
        Trick(
            "kept-picklers",
            "picklers used again",
            patches=(Patch("pidfdpool.serialization.picklers", "_MAX_KEPT", -1),),
        ),
        Trick(
            "named-calls",
            "calls sent by the function's name",
            patches=(Patch("pidfdpool.serialization.named_calls", "dumps", _nobody),),
        ),
        Trick(
            "plain",
            "passing over what is plain",
            patches=(Patch("pidfdpool.serialization.plain_data", "is_plain", _never),),
        ),
        Trick(
            "direct-writes",
            "writes by who submits",
            patches=(
                Patch(_FAST_PATH, "FastPath.hand_over", _nobody),
                Patch(_DECISIONS, "Decisions.defers", property(_later)),
            ),
        ),
        Trick("leader", "the leader", patches=(Patch(_DECISIONS, "Decisions.may_lead", property(_never)),)),
        Trick("spinning", "spinning", {"spin": 0}),
        Trick(
            "leaders-spinning",
            "spinning of the leader",
            patches=(Patch("pidfdpool.process.spinning", "LEADER_LIMIT", 0.0),),
        ),
        Trick(
            "short-ways",
            "the short ways",
            patches=(
                Patch(_FAST_PATH, "FastPath.enqueue", _never),
                Patch(_FAST_PATH, "FastPath.hand_over", _nobody),
                Patch(_FAST_PATH, "FastPath.take_answers", _never),
            ),
        ),
        Trick("chunks", "chunks of map", patches=(Patch("pidfdpool.executor.mapping", "is_adaptive", _never),)),
        Trick(
            "mailbox",
            "one wake-up of the event loop for many answers",
            patches=(Patch("pidfdpool.executor.async_calls", "Mailbox.post", _wake_for_each),),
        ),
        Trick(
            "reading-loop",
            "reading by the event loop",
            patches=(Patch("pidfdpool.loop.loop_reader", "LoopReader.watch", _never),),
        ),
        Trick(
            "lying-answers",
            "answers that lie until the next wait",
            patches=(Patch("pidfdpool.loop.watchdog", "Watchdog.stands_back", _never),),
        ),
        Trick("segments", "shared memory", {"segment_memory": 0}, chosen="segment_memory"),
    )
    if trick.exists
)
