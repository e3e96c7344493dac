"""The maps of one executor that may have calls to submit, as far as the executor has to know of them.

Calls can be submitted only while the executor accepts them. So before it shuts down, each of these maps has to submit
its remaining calls, or to drop them.
"""

from __future__ import annotations

import weakref
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import TYPE_CHECKING

from pidfdpool.typed import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


class Map(Protocol):
    """What a map does when its executor shuts down or is copied by a fork."""

    def submit_rest(self, *, wait: bool = True) -> bool:
        """Submit all remaining calls. False: another thread submits for this map, and `wait` was not asked for."""

    def stop_submitting(self, failure: BaseException | None) -> None:
        """Submit no more calls. The consumer gets `failure` in the place of their results."""

    def forget_in_forked_child(self) -> None:
        """Stop, in a forked child: the parent goes on with this map."""


class OpenMaps:
    """The maps that may have calls which are not submitted yet. Thread-safe. Keeps no map alive."""

    def __init__(self) -> None:
        self._maps: weakref.WeakSet[Map] = weakref.WeakSet()

    def add(self, adaptive_map: Map) -> None:
        """Register a map that has calls to submit."""
        self._maps.add(adaptive_map)

    def __iter__(self) -> Iterator[Map]:
        return iter(list(self._maps))

    def finish(self, *, cancel: bool) -> None:
        """Have every map submit its remaining calls, or with `cancel` drop them."""
        for each in self:
            if cancel:
                each.stop_submitting(CancelledError())
            else:
                each.submit_rest()

    def stop_reading_here(self) -> None:
        """Have everything end that waits for the calling thread to read, which will wait for the pool's end now."""
        for each in self:
            stop = getattr(each, "stop_reading_here", None)  # streams have it; the results of maps need no reader
            if stop is not None:
                stop()

    def submit_without_waiting(self) -> bool:
        """Have every map submit its remaining calls. False: another thread is doing that for one of them."""
        done = True
        for each in self:
            with suppress(BaseException):  # raised by what pickles an argument; the map's consumer is told
                done &= each.submit_rest(wait=False)
        return done

    def forget_in_forked_child(self) -> None:
        """Stop every map and forget it, in a forked child."""
        for each in self:
            each.forget_in_forked_child()
        self._maps.clear()
