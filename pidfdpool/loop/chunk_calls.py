"""What the host knows of a task that makes several calls of a `map`: of which function, and which calls.

In place of the function such a task is submitted as a `Chunk`; workers get the function that it calls. If the task
fails as a whole, the error names the call that was under way, and not the chunk, because users do not see chunks. The
worker records in its black box which call is under way (`worker.chunk`). The user's thread that takes the error adds
the arguments of that call (`describe`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from pidfdpool import checks
from pidfdpool.records import dataclass
from pidfdpool.worker.chunk import calls_under_way

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pidfdpool.deaths import Death
    from pidfdpool.transport.published import Published

_SHOWN = 100  # characters of a call's arguments


@dataclass(frozen=True, slots=True)
class Terms:
    """What the pool has to know of a chunk whose calls count each for itself (`worker.chunk_publishing`).

    since: from when on the deadline of its calls counts, as time.monotonic() tells it; None: from now on.
    attempts, deaths: the attempts that its only call has had in other chunks. It is one task by itself now.
    follows: it goes on with what another chunk has left.
    """

    since: float | None = None
    attempts: int = 0
    deaths: tuple[Death, ...] = ()
    follows: bool = False


class Chunk:
    """The function of one task that makes several calls of a map."""

    __slots__ = (
        "_calls", "_first", "_known", "_starred", "bound", "call", "func", "name", "of_script", "published", "terms",
    )  # fmt: skip

    def __init__(
        self,
        call: Callable[..., Any],
        name: str,
        first: int,
        calls: Sequence[Any],
        *,
        starred: bool = True,
        func: Callable[..., Any] | None = None,
        of_script: bool = False,
        terms: Terms | None = None,
    ) -> None:
        """Say what the task is to do.

        call: what the worker calls; with `func` as its first argument, if there is one.
        name: of the user's function.
        first: which call of the map the first of these is, counted from 0.
        starred: each of the calls is a tuple of arguments; otherwise it is the one argument.
        func: the user's function itself, if it is sent along with the task.
        of_script: the worker needs what running the host's script again makes.
        terms: if each call counts for itself.
        """
        self.call: Callable[..., Any] = call
        self.bound: tuple[Callable[..., Any], ...] = () if func is None else (func,)
        self.name: str = name
        self._first = first
        self._calls = calls
        self._starred = starred
        self.func: Callable[..., Any] | None = func
        self.of_script: bool = of_script
        self.terms: Terms | None = terms
        self.published: Published | None = None  # by a worker that has not answered, and never will
        self._known = 0, len(calls)  # the first of the calls that the worker may have been at, and the end of them

    def __reduce__(self) -> tuple[Any, ...]:
        """Be what the worker calls."""
        return partial, (self.call, *self.bound)

    def __call__(self, *arguments: Any) -> Any:
        """Make the calls here, as a function would: a subclass that overrides `submit` may call what it gets."""
        return self.call(*self.bound, *arguments)

    @property
    def label(self) -> str:
        """What to call the task in messages: the function, and those calls that may have been under way."""
        begin, end = self._known
        first, last = self._first + begin, self._first + end - 1
        which = f"item {first}" if first == last else f"items {first} to {last}"
        return f"{self.name}, {which} of map"

    def narrow(self, marks: int) -> None:
        """Take note of how many marks a dead worker's black box holds."""
        self._known = calls_under_way(marks, len(self._calls)) or self._known

    def take(self, published: Published | None) -> None:
        """Take note of what the worker has published of these calls, if that can be true."""
        if published is None or published.begun > len(self._calls):
            return
        self.published = published
        done = len(published.ends)
        if published.begun > done:
            self._known = done, published.begun

    def narrow_to_first(self) -> None:
        """Take note that the first of the calls is the one to be named."""
        self._known = 0, 1

    @property
    def size(self) -> int:
        """How many calls it makes."""
        return len(self._calls)

    @property
    def counted(self) -> int:
        """How many calls it makes that count each for itself; 0: it is one task."""
        return len(self._calls) if self.terms is not None and not self.terms.attempts else 0

    def arguments(self) -> str:
        """Return the arguments of the call, if it is known which one it was. Runs code of the user's."""
        begin, end = self._known
        if end - begin != 1:
            return ""
        call = self._calls[begin]
        text = ", ".join(map(checks.short_repr, call)) if self._starred else checks.short_repr(call)
        return f": {text if len(text) <= _SHOWN else text[: _SHOWN - 3] + '...'}"

    def named(self) -> dict[str, Any]:
        """Return the arguments of all calls, by what to call them in messages."""
        return {
            f"argument {number} of item {self._first + index} of map": value
            for index, call in enumerate(self._calls)
            for number, value in enumerate(call if self._starred else (call,), 1)
        }


def describe(error: BaseException) -> None:
    """Have the error of a task that was a chunk name the call, with its arguments. In the user's thread."""
    chunk = vars(error).pop("chunk", None)
    if type(chunk) is Chunk:
        failure: Any = error
        label = failure.task
        failure.task = label + chunk.arguments()
        failure.message = failure.message.replace(label, failure.task, 1)
        failure.args = (failure.message,)
