"""The collector for prometheus-client.

A metric must appear once in what is scraped, with the samples of all pools. So one object for each registry and
namespace is registered there, an `_Exposition`, and the collectors of that registry are its parts. Those of swarms
have an exposition of their own. For each collector there is a `_Registration` besides, so that the registry's
`unregister` knows the collector.

Any thread may scrape. A scrape takes the pool's lock for microseconds, and reads two files of proc(5) for each
worker.
"""

from __future__ import annotations

import os
import re
import weakref
from contextlib import suppress
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import REGISTRY, CollectorRegistry
from prometheus_client.utils import floatToGoString

from pidfdpool import checks
from pidfdpool.integrations.metrics.catalogue import POOLS
from pidfdpool.integrations.metrics.swarm_catalogue import SWARMS
from pidfdpool.integrations.metrics.watched_pool import DEFAULT_BUCKETS, WatchedPool
from pidfdpool.integrations.metrics.watched_set import WatchedSet
from pidfdpool.integrations.metrics.watched_swarm import WatchedSwarm
from pidfdpool.process import locks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pidfdpool import PidfdPoolExecutor
    from pidfdpool.integrations.metrics.catalogue import Catalogue, HistogramMetric, Metric
    from pidfdpool.integrations.metrics.task_counts import Distribution
    from pidfdpool.integrations.metrics.watched_set import Watched
    from pidfdpool.swarm import Swarm

_NAMESPACE = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


class _Keyed:
    """Equal to what has the same key, which only a collector and its registration have."""

    def __init__(self, key: object) -> None:
        self._key = key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Keyed) and other._key is self._key

    def __hash__(self) -> int:
        return hash(self._key)


class _Registration(_Keyed):
    """What a registry has for one collector. It shows nothing itself.

    `unregister` finds it when it is given the collector. Nothing but the registry refers to it, so its end tells that
    it was unregistered.
    """

    def describe(self) -> Iterable[Any]:
        return ()

    def collect(self) -> Iterable[Any]:
        return ()


class _Collector(_Keyed):
    """One pool, or swarm, in a registry."""

    def __init__(
        self, watch: Callable[[], Watched], catalogue: Catalogue, registry: CollectorRegistry | None, namespace: str
    ) -> None:
        """Begin to show what `watch` returns. Raises as the public classes."""
        if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
            raise ValueError(
                f"namespace must be letters, digits and underscores, as in 'pidfdpool', not "
                f"{checks.short_repr(namespace)}"
            )
        if registry is not None and not callable(getattr(registry, "register", None)):
            raise TypeError(f"registry must be a CollectorRegistry or None, not {checks.short_repr(registry)}")
        super().__init__(object())
        self._watched = watch()
        self._registry = registry
        try:
            if registry is None:
                self._exposition = _Exposition(namespace, catalogue)
                self._exposition.watched.add(self._watched)
            else:
                self._exposition = _join(registry, namespace, catalogue, self._watched, self._key)
        except BaseException:
            self._watched.close()
            raise

    def collect(self) -> Iterator[Any]:
        """Yield the metrics, of all that are registered together. For a registry; any thread."""
        return self._exposition.collect()

    def describe(self) -> Iterator[Any]:
        """Yield the metrics without values, as `collect` does. For a registry, which looks for name clashes."""
        return self._exposition.describe()

    def close(self) -> None:
        """Stop counting, and show it no more. It goes on without this. Calling it again does nothing."""
        self._watched.close()
        with _lock:
            self._exposition.watched.remove(self._watched)
            if self._registry is None:
                return
            with suppress(KeyError):  # it was unregistered
                self._registry.unregister(self)
            if not self._exposition.watched.alive():
                _unregister(self._registry, self._exposition)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._watched}>"


class PrometheusCollector(_Collector):
    """Metrics of a pool for Prometheus, which a registry of prometheus-client collects: `PrometheusCollector(pool)`.

    Args:
        pool: the pool. It is neither started nor kept alive by this.
        name: the value of the label "pool". Pools of one registry have different names.
        registry: where to register. None: nowhere; give this object to a registry's `register`. Such a registry takes
            one collector of a namespace, so it shows one pool.
        namespace: what the names of all metrics begin with.
        buckets: upper bounds of the histograms' buckets in seconds, ascending. Default: from 0.1 ms to 5 minutes.
        max_functions: 0: functions are not told apart. Otherwise so many get a label "function" of their own, and
            what comes after these is counted under "other".

    Tasks and deaths are counted from now on, so make the collector before the first submit. What is made of
    `pool.stats()` counts from there. docs/metrics.md lists all metrics. After the pool's end the last values stay,
    until the executor is collected. A forked child counts from zero. Thread-safe.

    Raises:
        ValueError: the registry has a pool of this name already, or other metrics with these names; or an argument
            makes no sense. The message names it.
        TypeError: pool is no pool, or an argument makes no sense.
    """

    def __init__(
        self,
        pool: PidfdPoolExecutor,
        *,
        name: str = "default",
        registry: CollectorRegistry | None = REGISTRY,
        namespace: str = "pidfdpool",
        buckets: Iterable[float] = DEFAULT_BUCKETS,
        max_functions: int = 0,
    ) -> None:
        super().__init__(
            lambda: WatchedPool(pool, name, buckets=buckets, max_functions=max_functions), POOLS, registry, namespace
        )


class PrometheusSwarmCollector(_Collector):
    """Metrics of a swarm for Prometheus: `PrometheusSwarmCollector(swarm)`. Otherwise as `PrometheusCollector`.

    Args:
        swarm: the swarm. It is not started by this.
        name: the value of the label "swarm". Swarms of one registry have different names. Default: the swarm's name.
        registry: where to register. None: nowhere; give this object to a registry's `register`. Such a registry takes
            one collector of a namespace, so it shows one swarm.
        namespace: what the names of all metrics begin with.

    Events are counted from now on, so make the collector before `start()`. docs/metrics.md lists all metrics. After
    the swarm's end the last values stay, until the `Swarm` is collected. A forked child does not show the swarms of
    its parent. Thread-safe.

    Raises:
        ValueError: the registry has a swarm of this name already, or other metrics with these names; or an argument
            makes no sense. The message names it.
        TypeError: swarm is no swarm, or an argument makes no sense.
        RuntimeError: the swarm belongs to the process from which this one was forked.
    """

    def __init__(
        self,
        swarm: Swarm,
        *,
        name: str | None = None,
        registry: CollectorRegistry | None = REGISTRY,
        namespace: str = "pidfdpool",
    ) -> None:
        super().__init__(lambda: WatchedSwarm(swarm, name), SWARMS, registry, namespace)


class _Exposition:
    """What is registered: the metrics of all pools, or of all swarms, of one registry and one namespace."""

    def __init__(self, namespace: str, catalogue: Catalogue) -> None:
        self.namespace, self.catalogue = namespace, catalogue
        self.watched = WatchedSet(catalogue.kind)
        self._registered: list[tuple[weakref.ref[_Registration], Watched]] = []

    def add(self, watched: Watched, registration: _Registration) -> None:
        """Show one more, for as long as its registration exists. The caller holds the lock.

        Raises:
            ValueError: as `WatchedSet.add`.
        """
        self.watched.add(watched)
        self._registered.append((weakref.ref(registration), watched))

    def drop_unregistered(self, registry: Any = None, name: str = "") -> None:
        """Close those whose registration has ended.

        Not at that moment: the registry's lock is held then, and to close may wait for a thread that wants it.

        registry: is asked about the one with this name, whose registration a scrape may still refer to.
        """
        with _lock:
            known = [(registration(), watched) for registration, watched in self._registered]
            if registry is not None:
                known = [
                    (None if watched.name == name and not _has(registry, registration) else registration, watched)
                    for registration, watched in known
                ]
            self._registered = [
                (weakref.ref(registration), watched)
                for registration, watched in known
                if registration is not None and watched.is_alive
            ]
        for registration, watched in known:
            if registration is None:
                watched.close()

    def describe(self) -> Iterator[Any]:
        for metric in self.catalogue.metrics:
            yield self._family(metric, ())
        for histogram in self.catalogue.histograms:
            yield self._histogram_family(histogram, ())

    def collect(self) -> Iterator[Any]:
        self.drop_unregistered()
        readings = self.watched.read()
        if not readings:
            return
        without = () if any(reading.tells_functions for reading in readings) else ("function",)
        for metric in self.catalogue.metrics:
            labels = [label for label in metric.labels if label not in without]
            family = self._family(metric, labels)
            for reading in readings:
                for values, number in metric.values(reading):
                    family.add_metric((reading.name, *values[: len(labels)]), number)
            yield family
        for histogram in self.catalogue.histograms:
            yield self._filled(histogram, readings, ["function"] if not without else [])

    def _family(self, metric: Metric, labels: Iterable[str]) -> Any:
        kind = CounterMetricFamily if metric.counts else GaugeMetricFamily
        return kind(f"{self.namespace}_{metric.name}", metric.text, labels=(self.catalogue.kind, *labels))

    def _histogram_family(self, histogram: HistogramMetric, labels: Iterable[str]) -> Any:
        return HistogramMetricFamily(
            f"{self.namespace}_{histogram.name}", histogram.text, labels=(self.catalogue.kind, *labels)
        )

    def _filled(self, histogram: HistogramMetric, readings: Iterable[Any], labels: list[str]) -> Any:
        family = self._histogram_family(histogram, labels)
        for reading in readings:
            for function, distribution in histogram.of(reading).items():
                values = (reading.name, function)[: 1 + len(labels)]
                family.add_metric(values, _cumulative(distribution), distribution.total)
        return family


def _cumulative(distribution: Distribution) -> list[tuple[str, int]]:
    bounds = [floatToGoString(bound) for bound in (*distribution.bounds, float("inf"))]
    return list(zip(bounds, accumulate(distribution.counts), strict=True))


_expositions: weakref.WeakKeyDictionary[Any, dict[tuple[str, str], _Exposition]] = weakref.WeakKeyDictionary()
_lock = locks.reentrant()  # guards `_expositions`, and who is in which; reentrant, for signal handlers and finalizers


def _join(registry: Any, namespace: str, catalogue: Catalogue, watched: Watched, key: object) -> _Exposition:
    """Have a registry show one more pool or swarm, that of the collector with this key; return by what it does.

    Raises:
        ValueError: it shows one of that name already, or has other metrics with these names.
    """
    kind = namespace, catalogue.kind
    known = _expositions.get(registry, {}).get(kind)
    if known is not None:
        known.drop_unregistered(registry, watched.name)  # it may free the name
    with _lock:
        of_registry = _expositions.setdefault(registry, {})
        known = of_registry.get(kind)
        exposition = known or _Exposition(namespace, catalogue)
        try:
            registry.register(exposition)  # also a known one: somebody may have emptied the registry
        except ValueError as error:
            if known is None:
                raise ValueError(
                    f"namespace {namespace!r} is taken: the registry has metrics with these names ({error}). Give "
                    "another namespace, or unregister those"
                ) from error
        of_registry[kind] = exposition
        registration = _Registration(key)
        exposition.add(watched, registration)
        registry.register(registration)
    return exposition


def _has(registry: Any, registration: _Registration | None) -> bool:
    """Return whether this is registered. A registry has no other way to tell."""
    if registration is None:
        return False
    try:
        registry.unregister(registration)
    except KeyError:
        return False
    registry.register(registration)
    return True


def _unregister(registry: Any, exposition: _Exposition) -> None:
    """Take an exposition of nothing out of its registry. The caller holds the lock."""
    if _expositions.get(registry, {}).pop((exposition.namespace, exposition.catalogue.kind), None) is not None:
        with suppress(KeyError):  # somebody has emptied the registry
            registry.unregister(exposition)


def _renew_after_fork() -> None:
    global _lock  # noqa: PLW0603  another thread may have held the parent's
    _lock = locks.reentrant()


os.register_at_fork(after_in_child=_renew_after_fork)
