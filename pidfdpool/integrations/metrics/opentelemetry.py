"""The instruments for OpenTelemetry. Needs its API only; without an SDK nothing is ever read.

A meter knows an instrument by its name, and takes the callbacks of the first one only. So there is one object for
each meter, `_Instruments`, which observes all pools of that meter. The SDK calls it when it exports, on a thread of
its own. Histograms have no callbacks. Durations are recorded in the first callback of an export, not when tasks end:
the SDK takes several microseconds for each, and runs the user's code.
"""

from __future__ import annotations

import os
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics
from opentelemetry.metrics import Observation

import pidfdpool
from pidfdpool import checks
from pidfdpool.integrations.metrics.catalogue import FUNCTION, METRICS, POOL, RUNS, WAITS, attribute
from pidfdpool.integrations.metrics.watched_pool import DEFAULT_BUCKETS, WatchedPool, WatchedPools

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pidfdpool import PidfdPoolExecutor
    from pidfdpool.integrations.metrics.catalogue import Metric

MOST_SAMPLES = 4096  # durations that are recorded in an export


class OpenTelemetryInstruments:
    """Metrics of a pool as OpenTelemetry's instruments: `OpenTelemetryInstruments(pool)`.

    Args:
        pool: the pool. It is neither started nor kept alive by this.
        name: the value of the attribute "pidfdpool.pool.name". Pools of one meter have different names.
        meter: the meter that makes the instruments. Default: that of the global meter provider for "pidfdpool", also
            if the provider is set later.
        buckets: upper bounds of the histograms' buckets in seconds, ascending, as advice for the SDK: its views
            decide. Default: from 0.1 ms to 5 minutes.
        max_functions: 0: functions are not told apart. Otherwise so many get an attribute "code.function.name" of
            their own, and what comes after these is counted under "other".

    Tasks and deaths are counted from now on, so make this before the first submit. docs/metrics.md lists all metrics.
    A histogram gets the durations of 4096 tasks in an export at most; of more tasks it gets every second, fourth, and
    so on. Counters count all. After the pool's end the last values stay, until the executor is collected. A forked
    child counts from zero. Thread-safe.

    Raises:
        ValueError: the meter has a pool of this name already, or an argument makes no sense. The message names it.
        TypeError: pool is no pool, or an argument makes no sense.
    """

    def __init__(
        self,
        pool: PidfdPoolExecutor,
        *,
        name: str = "default",
        meter: metrics.Meter | None = None,
        buckets: Iterable[float] = DEFAULT_BUCKETS,
        max_functions: int = 0,
    ) -> None:
        if meter is not None and not isinstance(meter, metrics.Meter):
            raise TypeError(f"meter must be a Meter or None, not {checks.short_repr(meter)}")
        self._watched = WatchedPool(pool, name, buckets=buckets, max_functions=max_functions, samples=MOST_SAMPLES)
        try:
            self._instruments = _join(meter, self._watched)
        except BaseException:
            self._watched.close()
            raise

    def close(self) -> None:
        """Stop counting, and show the pool no more. It goes on without this. Calling it again does nothing."""
        self._watched.close()
        with _lock:
            self._instruments.pools.remove(self._watched)

    def __repr__(self) -> str:
        return f"<OpenTelemetryInstruments of {self._watched}>"


class _Instruments:
    """The instruments of one meter, for all pools that it shows."""

    def __init__(self, meter: Any, buckets: tuple[float, ...]) -> None:
        self.pools = WatchedPools()
        self._waits, self._runs = (
            meter.create_histogram(
                histogram.dotted,
                unit="s",
                description=histogram.text,
                explicit_bucket_boundaries_advisory=list(buckets),
            )
            for histogram in (WAITS, RUNS)
        )
        for place, metric in enumerate(METRICS):
            create = meter.create_observable_counter if metric.counts else meter.create_observable_up_down_counter
            callback = partial(self._observe, metric, place == 0)
            create(metric.dotted, [callback], unit=metric.unit, description=metric.text)

    def _observe(self, metric: Metric, first: bool, _options: object) -> list[Observation]:
        if first:
            self._record_durations()
        return [
            Observation(number, _attributes(metric, reading.pool, values))
            for reading in self.pools.read()
            for values, number in metric.values(reading)
        ]

    def _record_durations(self) -> None:
        for watched in self.pools:
            for function, wait, run in watched.take_samples():
                attributes = {POOL: watched.name, FUNCTION: function} if function else {POOL: watched.name}
                if wait is not None:
                    self._waits.record(wait, attributes)
                if run is not None:
                    self._runs.record(run, attributes)


def _attributes(metric: Metric, pool: str, values: tuple[str, ...]) -> dict[str, str]:
    told = {attribute(metric, label): value for label, value in zip(metric.labels, values, strict=True) if value}
    return {POOL: pool, **told}


_of_meters: weakref.WeakKeyDictionary[Any, _Instruments] = weakref.WeakKeyDictionary()
_of_provider: list[_Instruments] = []  # those of the global meter provider, once there are any
_lock = threading.RLock()  # guards these, and who is in which; reentrant, for signal handlers and finalizers


def _join(meter: Any, watched: WatchedPool) -> _Instruments:
    """Have a meter show one more pool, and return by what it does.

    Raises:
        ValueError: it shows a pool of that name already.
    """
    with _lock:
        known = _of_meters.get(meter) if meter is not None else _of_provider[0] if _of_provider else None
        if known is None:
            known = _Instruments(
                metrics.get_meter("pidfdpool", pidfdpool.__version__) if meter is None else meter,
                watched.counts.bounds,
            )
            if meter is None:
                _of_provider.append(known)
            else:
                _of_meters[meter] = known
        known.pools.add(watched)
    return known


def _renew_after_fork() -> None:
    global _lock  # noqa: PLW0603  another thread may have held the parent's
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_after_fork)
