"""The pools: a script is written for the standard one; for another, its import and the context differ."""

from __future__ import annotations

from dataclasses import dataclass

from tests.scripts.kind import IMPORT, Kind

_STANDARD = f"import multiprocessing; {IMPORT}"
_OURS = "from pidfdpool import ProcessPoolExecutor"


@dataclass(frozen=True)
class Contender:
    """A pool that scripts are run with.

    head: the import that stands in the script instead of the standard one.
    context: what the script passes for `mp_context`.
    method: what it passes to `multiprocessing.get_context` to make locks and queues; scripts write "{method}".
    """

    name: str
    head: str = IMPORT
    context: str = ""
    method: str = "None"

    def script(self, text: str) -> str:
        """Return the text of a script, or of a module of it, for this pool."""
        text = text.replace(IMPORT, self.head).replace('"{method}"', self.method)
        if not self.context:
            return text
        return text.replace("ProcessPoolExecutor(", f"ProcessPoolExecutor(mp_context={self.context}, max_workers=")

    def may_fail(self, kind: Kind) -> bool:
        """Return whether a kind may fail with this pool: always with the standard one, with ours for a reason."""
        if self.head == _STANDARD:
            return True
        return bool(kind.reason_with_fork if self.context else kind.reason)


STANDARD_FORK = Contender("standard-fork", _STANDARD, 'multiprocessing.get_context("fork")', '"fork"')
STANDARD_SPAWN = Contender("standard-spawn", _STANDARD, 'multiprocessing.get_context("spawn")', '"spawn"')
OURS = Contender("ours", _OURS)
OURS_FORK = Contender("ours-fork", _OURS, '"fork"')

CONTENDERS = (STANDARD_FORK, STANDARD_SPAWN, OURS, OURS_FORK)
