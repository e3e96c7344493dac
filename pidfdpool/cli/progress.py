"""The bar on standard error, for a person at a terminal only. tqdm draws it, if that is installed."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pidfdpool.cli.streams import say

if TYPE_CHECKING:
    from collections.abc import Iterator


class Progress:
    """Shows how far the run is: in bytes where the end is known, otherwise in documents."""

    def __init__(self, *, wanted: bool, total: int | None, shares_terminal: bool) -> None:
        self._in_bytes = total is not None
        self._in_the_way = shares_terminal
        self._bar: Any = None
        if wanted and sys.stderr is not None and sys.stderr.isatty():
            self._bar = _make_bar(total)

    def advance(self, size: int, documents: int) -> None:
        """Take note of a block that is done."""
        if self._bar is not None:
            self._bar.update(size if self._in_bytes else documents)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bar away while documents are written to the same terminal."""
        if self._bar is None or not self._in_the_way:
            yield
            return
        self._bar.clear()
        yield
        self._bar.refresh()

    def close(self) -> None:
        """Leave the bar as it is and go to the next line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _make_bar(total: int | None) -> Any:
    try:
        tqdm = import_module("tqdm").tqdm
    except ImportError:
        say(
            "no progress bar, because tqdm is not installed: get it by python -m pip install tqdm, or do without it "
            "by --no-progress"
        )
        return None
    # Left alone, tqdm makes a lock that works across processes, which on some Pythons starts a process of its
    # own, and a thread that watches for bars which stand still.
    tqdm.set_lock(threading.RLock())
    tqdm.monitor_interval = 0
    size: dict[str, Any] = {"dynamic_ncols": True}
    if not os.get_terminal_size(sys.stderr.fileno()).columns:
        # A pseudo terminal that was never given a size. tqdm would find no room for a bar.
        size = {"ncols": 80, "nrows": 24}
    if total is None:
        return tqdm(file=sys.stderr, unit=" documents", **size)
    return tqdm(total=total, file=sys.stderr, unit="B", unit_scale=True, unit_divisor=1024, **size)
