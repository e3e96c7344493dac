"""The pools, or the swarms, that are shown together, under different names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pidfdpool import checks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pidfdpool.integrations.metrics.task_counts import Sample
    from pidfdpool.typed import Protocol

    class Watched(Protocol):
        """A `WatchedPool` or a `WatchedSwarm`."""

        name: str
        bounds: tuple[float, ...]  # of the buckets of its histograms

        @property
        def is_alive(self) -> bool:
            """Whether there is something to show."""
            return False

        @property
        def is_in_use(self) -> bool:
            """Whether no other one may take its name."""
            return False

        def read(self) -> Any:
            """Return its present numbers; None: it is gone."""

        def take_samples(self) -> list[Sample]:
            """Return durations since the last call, for its histograms."""
            return []

        def close(self) -> None:
            """Stop counting."""


class WatchedSet:
    """Pools, or swarms, that one registry or meter shows. The caller guards changes; any thread reads."""

    def __init__(self, kind: str) -> None:
        """Begin with none. kind: "pool" or "swarm", for messages."""
        self._kind = kind
        self._by_name: dict[str, Watched] = {}

    def add(self, watched: Watched) -> None:
        """Add one. Another one that has its name and is not in use any more is shown no more.

        Raises:
            ValueError: there is one with that name, and it is in use.
        """
        known = self._by_name.get(watched.name)
        if known is not None and known.is_in_use:
            raise ValueError(
                f"name {watched.name!r} is taken by another {self._kind} here ({known}): "
                f"give each {self._kind} its own name"
            )
        self._by_name = {**self.alive(), watched.name: watched}

    def remove(self, watched: Watched) -> None:
        """Remove one, if it is there."""
        self._by_name = {name: known for name, known in self.alive().items() if known is not watched}

    def alive(self) -> dict[str, Watched]:
        """Return those that have something to show, by name."""
        return {name: known for name, known in self._by_name.items() if known.is_alive}

    def __iter__(self) -> Iterator[Watched]:
        return iter(self._by_name.values())

    def read(self) -> list[Any]:
        """Return what there is to show."""
        return [reading for watched in self if (reading := watched.read()) is not None]


def checked_name(name: Any) -> str:
    """Return the name under which something is shown.

    Raises:
        TypeError, ValueError: it is none.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {checks.short_repr(name)}")
    if not name:
        raise ValueError("name must not be empty")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"name must be text that UTF-8 can encode, not {checks.short_repr(name)}") from None
    return name
