"""The progress bar on standard error, only if that is a terminal. tqdm draws it, if it is installed.

Called by `map`, in the host, on its main thread.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pidfdpool.cli.streams import print_error

if TYPE_CHECKING:
    from collections.abc import Iterator


class Progress:
    """Shows the progress of a run: in bytes if the total is known, otherwise in documents."""

    def __init__(self, *, wanted: bool, total: int | None, shares_terminal: bool) -> None:
        self._in_bytes = total is not None
        self._hides_for_output = shares_terminal
        self._bar: Any = None
        if wanted and sys.stderr is not None and sys.stderr.isatty():
            self._bar = _make_bar(total)

    def advance(self, size: int, documents: int) -> None:
        """Add a block that is done."""
        if self._bar is not None:
            self._bar.update(size if self._in_bytes else documents)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the bar within the block, in which documents are written to the same terminal."""
        if self._bar is None or not self._hides_for_output:
            yield
            return
        self._bar.clear()
        yield
        self._bar.refresh()

    def close(self) -> None:
        """Leave the bar on the screen, and move to the next line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _make_bar(total: int | None) -> Any:
    try:
        tqdm = import_module("tqdm").tqdm
    except ImportError:
        print_error(
            "no progress bar, because tqdm is not installed: install it by python -m pip install tqdm, or use "
            "--no-progress"
        )
        return None
    # By default tqdm makes a lock that works across processes, which on some Pythons starts a process, and it starts
    # a thread that watches for bars that do not move.
    tqdm.set_lock(threading.RLock())
    tqdm.monitor_interval = 0
    size: dict[str, Any] = {"dynamic_ncols": True}
    if not os.get_terminal_size(sys.stderr.fileno()).columns:
        # A pseudo terminal without a size. tqdm would find no room for a bar.
        size = {"ncols": 80, "nrows": 24}
    if total is None:
        return tqdm(file=sys.stderr, unit=" documents", **size)
    return tqdm(total=total, file=sys.stderr, unit="B", unit_scale=True, unit_divisor=1024, **size)
