"""One swarm under a name, and the count of its events.

A swarm counts in its supervisor's thread, exporters read on theirs. There is one writer and no lock, so nothing is
left locked in a forked child.

A running swarm goes on when nobody refers to its `Swarm`, and is still to be shown then. So the subscription, which
the swarm has, refers to it, and all else here only to the subscription, weakly.
"""

from __future__ import annotations

import os
import weakref
from collections import Counter
from typing import TYPE_CHECKING

from pidfdpool import checks
from pidfdpool.integrations.metrics.swarm_catalogue import SwarmReading
from pidfdpool.integrations.metrics.task_counts import signal_of
from pidfdpool.integrations.metrics.watched_set import checked_name
from pidfdpool.swarm import Phase, Swarm

if TYPE_CHECKING:
    from pidfdpool.integrations.metrics.task_counts import Sample
    from pidfdpool.swarm import NodeEvent


class _Subscription:
    """What a swarm calls with its events, and is kept by."""

    def __init__(self, swarm: Swarm) -> None:
        self.swarm = swarm
        self.events: Counter[str] = Counter()
        self.deaths: Counter[tuple[str, str]] = Counter()
        self.end = swarm.subscribe(self._count)

    def _count(self, event: NodeEvent) -> None:
        self.events[event.kind.name] += 1
        if event.death is not None:
            self.deaths[event.death.reason.name.lower(), signal_of(event.death.exit_status.signal)] += 1


class WatchedSwarm:
    """A swarm, its name, and what is counted of it. It has no histograms."""

    bounds: tuple[float, ...] = ()

    def __init__(self, swarm: Swarm, name: str | None) -> None:
        """Begin to count. name: default: the swarm's.

        Raises:
            TypeError, ValueError: an argument makes no sense.
            RuntimeError: the swarm belongs to the process from which this one was forked.
        """
        if not isinstance(swarm, Swarm):
            raise TypeError(f"swarm must be a Swarm, not {checks.short_repr(swarm)}")
        self.name = checked_name(swarm.name if name is None else name)
        swarm.status()  # raises in a forked child
        self._process = os.getpid()
        self._is_closed = False
        self._subscription = weakref.ref(_Subscription(swarm))

    def _here(self) -> _Subscription | None:
        """Return the subscription, if the swarm is to be shown in this process and still there."""
        return None if self._is_closed or os.getpid() != self._process else self._subscription()

    @property
    def is_alive(self) -> bool:
        """Whether there is something to show: it is not closed, its swarm is there, and belongs to this process."""
        return self._here() is not None

    @property
    def is_in_use(self) -> bool:
        """Whether no other swarm may take its name: it is alive, and has not ended."""
        here = self._here()
        return here is not None and here.swarm.status().phase is not Phase.ENDED

    def read(self) -> SwarmReading | None:
        """Return the swarm's present numbers; None: it is gone. Starts nothing."""
        here = self._here()
        if here is None:
            return None
        status = here.swarm.status(measure_memory=True)
        return SwarmReading(self.name, status, here.events.copy(), here.deaths.copy())

    def take_samples(self) -> list[Sample]:
        """Return nothing."""
        return []

    def close(self) -> None:
        """Stop counting."""
        self._is_closed = True
        subscription = self._subscription()
        if subscription is not None:
            subscription.end()

    def __repr__(self) -> str:
        subscription = self._subscription()
        return f"swarm {self.name!r}: {None if subscription is None else subscription.swarm!r}"
