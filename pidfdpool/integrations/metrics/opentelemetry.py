"""The instruments for OpenTelemetry. Needs its API only; without an SDK nothing is ever read.

A meter knows an instrument by its name, and takes the callbacks of the first one only. So there is one object for
each meter, `_Instruments`, which observes all pools of that meter, and one for its swarms. The SDK calls it when it
exports, on a thread of its own. Histograms have no callbacks. Durations are recorded in the first callback of an
export, not when tasks end: the SDK takes several microseconds for each, and runs the user's code.
"""

from __future__ import annotations

import os
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics
from opentelemetry.metrics import Observation

import pidfdpool
from pidfdpool import checks
from pidfdpool.integrations.metrics.catalogue import ATTRIBUTES, FUNCTION, POOL, POOLS, RUNS, WAITS, attribute
from pidfdpool.integrations.metrics.swarm_catalogue import SWARMS
from pidfdpool.integrations.metrics.watched_pool import DEFAULT_BUCKETS, WatchedPool
from pidfdpool.integrations.metrics.watched_set import WatchedSet
from pidfdpool.integrations.metrics.watched_swarm import WatchedSwarm
from pidfdpool.process import locks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pidfdpool import PidfdPoolExecutor
    from pidfdpool.integrations.metrics.catalogue import Catalogue, Metric
    from pidfdpool.integrations.metrics.watched_set import Watched
    from pidfdpool.swarm import Swarm

MOST_SAMPLES = 4096  # durations that are recorded in an export


class _Shown:
    """One pool, or swarm, that a meter shows."""

    def __init__(self, watch: Callable[[], Watched], catalogue: Catalogue, meter: Any) -> None:
        """Begin to show what `watch` returns. Raises as the public classes."""
        if meter is not None and not isinstance(meter, metrics.Meter):
            raise TypeError(f"meter must be a Meter or None, not {checks.short_repr(meter)}")
        self._watched = watch()
        try:
            self._instruments = _join(meter, catalogue, self._watched)
        except BaseException:
            self._watched.close()
            raise

    def close(self) -> None:
        """Stop counting, and show it no more. It goes on without this. Calling it again does nothing."""
        self._watched.close()
        with _lock:
            self._instruments.watched.remove(self._watched)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._watched}>"


class OpenTelemetryInstruments(_Shown):
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
        super().__init__(
            lambda: WatchedPool(pool, name, buckets=buckets, max_functions=max_functions, samples=MOST_SAMPLES),
            POOLS,
            meter,
        )


class OpenTelemetrySwarmInstruments(_Shown):
    """Metrics of a swarm as OpenTelemetry's instruments: `OpenTelemetrySwarmInstruments(swarm)`.

    Args:
        swarm: the swarm. It is not started by this.
        name: the value of the attribute "pidfdpool.swarm.name". Swarms of one meter have different names. Default:
            the swarm's name.
        meter: as for `OpenTelemetryInstruments`.

    Events are counted from now on, so make this before `start()`. docs/metrics.md lists all metrics. After the
    swarm's end the last values stay, until the `Swarm` is collected. A forked child does not show the swarms of its
    parent. Thread-safe.

    Raises:
        ValueError: the meter has a swarm of this name already, or an argument makes no sense. The message names it.
        TypeError: swarm is no swarm, or an argument makes no sense.
        RuntimeError: the swarm belongs to the process from which this one was forked.
    """

    def __init__(self, swarm: Swarm, *, name: str | None = None, meter: metrics.Meter | None = None) -> None:
        super().__init__(lambda: WatchedSwarm(swarm, name), SWARMS, meter)


class _Instruments:
    """The instruments of one meter, for all pools, or all swarms, that it shows."""

    def __init__(self, meter: Any, catalogue: Catalogue, buckets: tuple[float, ...]) -> None:
        self._catalogue = catalogue
        self.watched = WatchedSet(catalogue.kind)
        self._histograms = {
            histogram: meter.create_histogram(
                histogram.dotted,
                unit="s",
                description=histogram.text,
                explicit_bucket_boundaries_advisory=list(buckets),
            )
            for histogram in catalogue.histograms
        }
        for place, metric in enumerate(catalogue.metrics):
            create = _creator_of(metric, meter)
            callback = partial(self._observe, metric, place == 0)
            create(metric.dotted, [callback], unit=metric.unit, description=metric.text)

    def _observe(self, metric: Metric, first: bool, _options: object) -> list[Observation]:
        if first and self._histograms:
            self._record_durations()
        return [
            Observation(number, self._attributes(metric, reading.name, values))
            for reading in self.watched.read()
            for values, number in metric.values(reading)
        ]

    def _record_durations(self) -> None:
        waits, runs = self._histograms[WAITS], self._histograms[RUNS]
        for watched in self.watched:
            for function, wait, run in watched.take_samples():
                attributes = {POOL: watched.name, FUNCTION: function} if function else {POOL: watched.name}
                if wait is not None:
                    waits.record(wait, attributes)
                if run is not None:
                    runs.record(run, attributes)

    def _attributes(self, metric: Metric, name: str, values: tuple[str, ...]) -> dict[str, str]:
        told = {attribute(metric, label): value for label, value in zip(metric.labels, values, strict=True) if value}
        return {ATTRIBUTES[self._catalogue.kind]: name, **told}


def _creator_of(metric: Metric, meter: Any) -> Callable[..., object]:
    """Return what creates an instrument for a metric."""
    if metric.counts:
        create = meter.create_observable_counter
    elif metric.adds_up:
        create = meter.create_observable_up_down_counter
    else:
        create = meter.create_observable_gauge
    return create  # type: ignore[no-any-return]


# By meter, and in that by the kind of what they show.
_of_meters: weakref.WeakKeyDictionary[Any, dict[str, _Instruments]] = weakref.WeakKeyDictionary()
_of_provider: dict[str, _Instruments] = {}  # those of the global meter provider
_lock = locks.reentrant()  # guards these, and who is in which; reentrant, for signal handlers and finalizers


def _join(meter: Any, catalogue: Catalogue, watched: Watched) -> _Instruments:
    """Have a meter show one more pool or swarm, and return by what it does.

    Raises:
        ValueError: it shows one of that name already.
    """
    with _lock:
        of_meter = _of_provider if meter is None else _of_meters.setdefault(meter, {})
        known = of_meter.get(catalogue.kind)
        if known is None:
            known = of_meter[catalogue.kind] = _Instruments(
                metrics.get_meter("pidfdpool", pidfdpool.__version__) if meter is None else meter,
                catalogue,
                watched.bounds,
            )
        known.watched.add(watched)
    return known


def _renew_after_fork() -> None:
    global _lock  # noqa: PLW0603  another thread may have held the parent's
    _lock = locks.reentrant()


os.register_at_fork(after_in_child=_renew_after_fork)
