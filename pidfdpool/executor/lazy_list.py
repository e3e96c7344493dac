"""An attribute that is a list from its first access on. Thread-safe. Used by futures, most of which need no list."""

from __future__ import annotations

from typing import Any


class LazyList:
    """A list that is made at its first access. Most futures are resolved before that."""

    def __init__(self, kind: type[list[Any]]) -> None:
        self._kind = kind

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = name

    def __get__(self, future: Any, _owner: type) -> Any:
        if future is None:
            return self
        return future.__dict__.setdefault(self._name, self._kind())  # atomic, so that all threads get the same
