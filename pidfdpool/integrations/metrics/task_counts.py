"""Counts what becomes of a pool's tasks and workers, as an observer of the pool.

The pool calls `take` in its own threads, with many attempts at a time, and tasks wait for that. So whatever can be
done for all of a batch by one call of a C function is done so. Exporters call `read` and `take_samples` on theirs.
Both sides hold a lock for that. It is reentrant, because a signal handler may scrape in the middle of a `take`.
"""

from __future__ import annotations

import math
import signal
from bisect import bisect_left, bisect_right
from collections import Counter
from itertools import compress
from operator import sub
from typing import TYPE_CHECKING, NamedTuple

from pidfdpool import Attempts, WorkerChange
from pidfdpool.process import locks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pidfdpool import Death

OUTCOMES = ("done", "failed", "cancelled", "killed", "timed_out", "crashed")
OTHER = "other"  # takes the place of the functions that are too many
_NONE = ""


class Distribution(NamedTuple):
    """A histogram. bounds: the upper bounds of all buckets but the last; counts: of each bucket; total: the sum."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    def plus(self, values: Sequence[float], total: float) -> Distribution:
        """Return this with further values, of which there is at least one. total: their sum."""
        bounds, counts = self.bounds, list(self.counts)
        last, below = bisect_left(bounds, max(values)), 0
        if last and min(values) <= bounds[last - 1]:  # mostly all are in one bucket
            values = sorted(values)
            for at in range(last):
                up_to = bisect_right(values, bounds[at])
                counts[at] += up_to - below
                below = up_to
        counts[last] += len(values) - below
        return Distribution(bounds, tuple(counts), self.total + total)


class Sample(NamedTuple):
    """One attempt, for exporters that take each by itself; None: not known, or it never began."""

    function: str
    wait: float | None
    run: float | None


class TaskCounts:
    """Everything that is counted of one pool; see the module for its threads."""

    def __init__(self, bounds: tuple[float, ...], max_functions: int, most_samples: int) -> None:
        """Begin at zero.

        Args:
            bounds: of the histograms' buckets.
            max_functions: functions to tell apart; 0: none.
            most_samples: samples to keep for `take_samples`, an even number; 0: none.
        """
        self.bounds, self.max_functions, self._most_samples = bounds, max_functions, most_samples
        self._reset()

    def _reset(self) -> None:
        self._lock = locks.reentrant()
        self._functions: dict[str, str] = {}  # what each is shown as
        self._tasks: Counter[tuple[str, str, str]] = Counter()
        self._deaths: Counter[tuple[str, str]] = Counter()
        self._waits: dict[str, Distribution] = {}
        self._runs: dict[str, Distribution] = {}
        self._samples: list[tuple[str, float, float]] = []  # as Sample, with NaN for None
        self._stride = 1  # of so many attempts one is a sample
        self._skip = 0  # attempts before the next one

    # ---- for exporters -------------------------------------------------------------------------------------

    def read(
        self,
    ) -> tuple[
        dict[tuple[str, str, str], int], dict[str, Distribution], dict[str, Distribution], dict[tuple[str, str], int]
    ]:
        """Return tasks, waits, runs and deaths, as `catalogue.Reading` has them.

        Where functions are not told apart, every outcome and both histograms are there from the start, with 0.
        """
        with self._lock:
            tasks = dict(self._tasks)
            waits, runs, deaths = dict(self._waits), dict(self._runs), dict(self._deaths)
        if not self.max_functions:
            for outcome in OUTCOMES:
                tasks.setdefault((outcome, _NONE, _NONE), 0)
            for distributions in (waits, runs):
                distributions.setdefault(_NONE, self._empty)
        return tasks, waits, runs, deaths

    def take_samples(self) -> list[Sample]:
        """Return attempts that have ended since the last call: all, or every second, fourth, and so on of many."""
        with self._lock:
            samples, self._samples = self._samples, []
            self._stride, self._skip = 1, 0
        return [Sample(function, _known(wait), _known(run)) for function, wait, run in samples]

    # ---- for the pool: `pidfdpool.Observer` -------------------------------------------------------

    def take(self, records: Sequence[object]) -> None:
        """Count what has happened."""
        with self._lock:
            self._take_all(records)

    def _take_all(self, records: Sequence[object]) -> None:
        for record in records:
            if isinstance(record, Attempts):
                self._count(record)
            elif isinstance(record, WorkerChange) and record.death is not None:
                self._count_death(record.death)

    def work(self, _now: float, *, idle: bool) -> float | None:
        """Do nothing."""

    def pool_ended(self) -> None:
        """Do nothing: the last values stay."""

    def follows_into_forked_child(self) -> bool:
        """Count from zero what a forked child's own pool does."""
        self._reset()
        return True

    # ---- with the lock -------------------------------------------------------------------------------------

    @property
    def _empty(self) -> Distribution:
        return Distribution(self.bounds, (0,) * (len(self.bounds) + 1), 0.0)

    def _count(self, attempts: Attempts) -> None:
        functions, count = attempts.functions, len(attempts.tasks)
        if not self.max_functions:
            self._count_of(_NONE, attempts, None)
        elif functions.count(functions[0]) == count:
            self._count_of(self._shown(functions[0]), attempts, None)
        else:
            shown = list(map(self._shown, functions))
            for function in set(shown):
                self._count_of(function, attempts, [one == function for one in shown])

    def _shown(self, function: str) -> str:
        shown = self._functions.get(function)
        if shown is None:
            if len(self._functions) >= self.max_functions:
                return OTHER
            # With half a surrogate pair in it nothing of the registry could be scraped.
            shown = self._functions[function] = function.encode(errors="backslashreplace").decode()
        return shown

    def _count_of(self, function: str, attempts: Attempts, chosen: list[bool] | None) -> None:
        """Count attempts of one function. chosen: which of them; None: all."""

        def of_function(values: Sequence[float]) -> Iterable[float]:
            return values if chosen is None else compress(values, chosen)

        waits = list(map(sub, of_function(attempts.began_at), of_function(attempts.queued_at)))
        runs = list(map(sub, of_function(attempts.ended_at), of_function(attempts.began_at)))
        if not attempts.retried:
            outcomes = attempts.outcomes if chosen is None else list(compress(attempts.outcomes, chosen))
            of_signal, same = _signal_in(attempts.death), outcomes.count(outcomes[0])
            numbers = {outcomes[0]: same} if same == len(outcomes) else Counter(outcomes)
            for outcome, number in numbers.items():
                self._tasks[outcome.replace(" ", "_"), of_signal, function] += number
        self._add(self._waits, function, waits)
        self._add(self._runs, function, runs)
        if self._most_samples:
            self._keep_samples(function, waits, runs)

    def _add(self, distributions: dict[str, Distribution], function: str, values: list[float]) -> None:
        total = sum(values)
        if math.isnan(total):
            values = [value for value in values if not math.isnan(value)]
            total = sum(values)
        if values:
            known = distributions.get(function)
            distributions[function] = (self._empty if known is None else known).plus(values, total)

    def _keep_samples(self, function: str, waits: list[float], runs: list[float]) -> None:
        at, count = self._skip, len(waits)
        while at < count:
            self._samples.append((function, waits[at], runs[at]))
            at += self._stride
            if len(self._samples) >= self._most_samples:
                self._samples, self._stride = self._samples[::2], 2 * self._stride
        self._skip = at - count

    def _count_death(self, death: Death) -> None:
        self._deaths[death.cause.name.lower(), _signal_in(death)] += 1


def _known(seconds: float) -> float | None:
    return None if math.isnan(seconds) else max(0.0, seconds)


def _signal_in(death: Death | None) -> str:
    return signal_of(None if death is None else death.exit_status.signal)


def signal_of(number: int | None) -> str:
    """Return the name of the signal that ended a process; "": none did, or it is not known."""
    if number is None:
        return _NONE
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}" if number >= signal.SIGRTMIN else str(number)
