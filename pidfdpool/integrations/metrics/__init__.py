"""Metrics of pools and swarms, for prometheus-client and for OpenTelemetry.

    watched_pool     one pool under a name: what is counted of its tasks and deaths, and `read()`
    watched_swarm    one swarm under a name, likewise
    watched_set      the pools, or the swarms, that are shown together
    task_counts      counts outcomes and durations, as the pool tells of them; no locks that a fork could leave held
    catalogue        every metric of a pool once: names, kind, unit, labels, and where its value is in a `Reading`
    swarm_catalogue  every metric of a swarm, likewise
    prometheus       collectors in a registry, which yield the catalogues for all pools and swarms of that registry
    opentelemetry    observable instruments and histograms of a meter, likewise

Nothing here starts a pool or a swarm, keeps an unused one alive, or has a thread. The threads of pools and swarms
only count. Who scrapes does the rest, on its own thread.
"""
