"""The inputs of a map with a `buffersize`, taken one by one as results are asked for.

Only the consumer's thread takes inputs. What it has taken is held until it is submitted (`bounded_map`).
"""

from __future__ import annotations

from itertools import compress, filterfalse, islice, starmap
from typing import TYPE_CHECKING, Any

from pidfdpool.process import interruptible

if TYPE_CHECKING:
    from collections.abc import Iterator


class Permit:
    """Whether the consumer may take inputs without looking further. Ended by any thread, at any point."""

    def __init__(self) -> None:
        self.ended: bool = False
        self._items: list[tuple[()]] = []  # one for each input that may be taken; none of them once it has ended
        self._left: Any = iter(self._items)

    def renew(self, count: int) -> Iterator[tuple[()]]:
        """Return an iterator with an item for each of the next inputs. It is at its end once the permit has ended."""
        self._items = [()] * count
        left = self._left = iter(self._items)
        if self.ended:  # looked at after `_items` was set, so that who ends it from now on finds this list
            self.end()
        return left

    def begun(self) -> int:
        """Return how many inputs were asked for since the permit was renewed. Not once its iterator told its end."""
        _, _, asked = self._left.__reduce__()  # which tells it also where the list was emptied meanwhile
        return int(asked)

    def end(self, _reference: object = None) -> None:
        """Have the consumer look around before it takes another input."""
        self.ended = True
        self._items.clear()  # so the iterator over it is at its end


class Inputs:
    """The inputs of one map: those that are held, and the way to take more. For one consumer.

    Attributes:
        held: the inputs that were taken and not submitted; each is a tuple of arguments. Any thread may remove some.
        go_on: there may be further inputs, and they are to be taken.
        failure: what an iterable has raised.
        permit: ended where inputs may have to be refused.
    """

    def __init__(self, calls: Iterator[tuple[Any, ...]]) -> None:
        """Note what is to be taken: calls, each as a tuple of arguments."""
        self.held: list[tuple[Any, ...]] = []
        # Takes an input, appends it to those that are held, and yields it.
        self._taking: Iterator[tuple[Any, ...]] = filterfalse(self.held.append, calls)
        self.go_on: bool = True
        self.failure: Exception | None = None
        self.permit: Permit = Permit()

    def take(self, count: int) -> int:
        """Take up to so many inputs; return how many there were. An error of theirs is kept as the failure.

        What a signal handler has raised meanwhile is raised: it is about what the consumer does now.
        """
        taken = 0
        try:
            for _ in islice(self._taking, count):
                taken += 1
        except Exception as error:
            if interruptible.is_of_handler(error):
                raise
            self._end(error)
        else:
            if taken < count:
                self._end(None)
        return taken

    def give_while_taking(self, results: list[Any]) -> Iterator[Any]:
        """Return an iterator that takes an input, and then yields the last of the results, until one of them ends.

        It keeps no reference to a result. Behind it, `note_end` has to be called.
        """
        return starmap(results.pop, compress(self.permit.renew(len(results)), self._taking))

    def note_end(self, count: int, left: int, error: Exception | None = None) -> bool:
        """Note how that iterator has come to its end. Return False if `error` is not that of an iterable.

        count, left: how many results there were, and how many are left. error: what was raised.
        """
        if error is not None:
            if self.permit.begun() <= count - left or interruptible.is_of_handler(error):
                return False
            self._end(error)
        elif left and not self.permit.ended:
            self._end(None)
        return True

    def _end(self, error: Exception | None) -> None:
        self.go_on = False
        self._taking = iter(())  # the former one keeps an input
        if error is not None:
            trace = error.__traceback__
            # Without the map's own frame, which would hold the map, which holds the error.
            self.failure = error.with_traceback(None if trace is None else trace.tb_next)
