"""Metrics of pools, for prometheus-client and for OpenTelemetry.

    watched_pool   one pool under a name: what is counted of its tasks and deaths, and `read()`
    task_counts    counts outcomes and durations, as the pool tells of them; no locks that a fork could leave held
    catalogue      every metric once: names, kind, unit, labels, and where its value is in a `Reading`
    prometheus     a collector in a registry, which yields the catalogue for all pools of that registry
    opentelemetry  observable instruments and histograms of a meter, likewise

Nothing here starts a pool, keeps one alive, or has a thread. The pool's threads only count. Who scrapes does the
rest, on its own thread.
"""
