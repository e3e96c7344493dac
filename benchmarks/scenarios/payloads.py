"""Large arguments and results: documents to transform, and bytes and arrays that come back as they are."""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from typing import Any

from benchmarks import processes, tasks, transforming
from benchmarks.contenders import LEFT_OUT, POOLS
from benchmarks.documents import documents
from benchmarks.scenario import Group, Metric, Scenario
from benchmarks.scenarios.common import WORKERS, New, started

_SIZES = {"64 KB": 64_000, "1 MB": 1_000_000, "16 MB": 16_000_000, "128 MB": 128_000_000}
_HUGE = {"2.2 GB": 2_200_000_000}  # more than what 31 bits can say
_HUGE_NEEDS = 6  # times as much memory: copies in the host and in the worker, and what lies between them
_DOCUMENTS = {"1 KB": 1000, "50 KB": 50_000, "600 KB": 600_000, "2 MB": 2_000_000}


def transform(size: int, new: New, quick: bool) -> dict[str, float]:
    """Transform documents in this process, then by map."""
    total = (1_000_000 if quick else 4_000_000) if size < 10_000 else (4_000_000 if quick else 8_000_000)
    batch = documents(size, max(8, total // size))
    began = time.perf_counter()
    expected = [transforming.transform(document) for document in batch]
    inline = time.perf_counter() - began
    pool = started(new)
    began = time.perf_counter()
    results = list(pool.map(transforming.transform, batch))
    took = time.perf_counter() - began
    assert results == expected
    return {"speedup": inline / took, "rate": sum(map(len, batch)) / took / 1e6}


def _payload(kind: str, size: int) -> Any:
    if kind == "bytes":
        return bytes(range(250)) * (size // 250)
    import numpy

    return numpy.arange(size // 8, dtype=numpy.float64)


def echo(kind: str, size: int, new: New, quick: bool) -> dict[str, float]:
    """Keep as many payloads under way as there are workers, each of which has had some before."""
    payload = _payload(kind, size)
    # So many that what is set up for the first of them does not count.
    count = max(8, min(2000, (32_000_000 if quick else 640_000_000) // size))
    pool = started(new)
    warming = [pool.submit(tasks.echo, payload) for _ in range(2 * WORKERS)]
    while warming:
        warming.pop().result()
    pending: deque[Any] = deque()
    began = time.perf_counter()
    for _ in range(count):
        if len(pending) == WORKERS:
            pending.popleft().result()
        pending.append(pool.submit(tasks.echo, payload))
    while pending:
        last = pending.popleft().result()
    took = time.perf_counter() - began
    assert len(last) == len(payload)
    return {"rate": count * size / took / 1e6}


def one_way(way: str, size: int, new: New, quick: bool) -> dict[str, float]:
    """Send payloads as arguments, or take them as results, one after the other; see what the host's memory does."""
    fn, argument = (tasks.nothing, _payload("bytes", size)) if way == "argument" else (tasks.kept, size)
    huge = size > 1_000_000_000
    count = 2 if huge else max(8, min(2000, (32_000_000 if quick else 640_000_000) // size))
    pool = started(new)
    for _ in range(0 if huge else 2 * WORKERS):
        pool.call(fn, argument)
    processes.forget_peak()
    before = processes.rss()
    began = time.perf_counter()
    for _ in range(count):
        pool.call(fn, argument)
    took = time.perf_counter() - began
    return {"rate": count * size / took / 1e6, "growth": max(0, processes.peak_rss() - before) / 1e6}


JSON = Group(
    "json",
    "JSON documents through map",
    "Each document, as bytes, is parsed, its numbers are rounded, and it is written anew; default arguments of map, "
    "2 workers. The speed-up is over the same loop in one process, of the same run.",
    tuple(
        Scenario(
            f"json-{title.replace(' ', '').lower()}",
            title,
            (
                Metric("speedup", "speed-up", "x inline", more_is_better=True),
                Metric("rate", "", "MB/s", more_is_better=True),
            ),
            partial(transform, size),
            quick=size in (1000, 600_000),
            at=size / 1000,
        )
        for title, size in _DOCUMENTS.items()
    ),
    axis="document, KB",
)

ECHO = tuple(
    Group(
        f"echo-{kind}",
        f"Payloads there and back: {title}",
        "A payload is sent to a worker, which returns it; two are under way at any time, 2 workers. Counted once.",
        tuple(
            Scenario(
                f"echo-{kind}-{name.replace(' ', '').lower()}",
                name,
                (Metric("rate", "", "MB/s", more_is_better=True),),
                partial(echo, kind, size),
                quick=kind == "bytes" and size <= 1_000_000,
                at=size / 1e6,
                needs=("numpy",) if kind == "array" else (),
            )
            for name, size in _SIZES.items()
        ),
        axis="payload, MB",
    )
    for kind, title in (("bytes", "bytes"), ("array", "numpy arrays"))
)

_EXHAUSTED = tuple(name for name in LEFT_OUT if name == "without-segments")

ONE_WAY = tuple(
    Group(
        way,
        f"Bytes as {way}s",
        f"Bytes as the {way} of a call, one call after the other, 2 workers that have had some before; 2.2 GB twice, "
        "without that. Host grows by: the most that its memory was above what it was before these calls, when it "
        "held the argument already. Without shared memory is what happens to ours while that is used up.",
        tuple(
            Scenario(
                f"{way}-{name.replace(' ', '').lower()}",
                name,
                (
                    Metric("rate", "", "MB/s", more_is_better=True),
                    Metric("growth", "host grows by", "MB", compared=False),
                ),
                partial(one_way, way, size),
                bound=240 if name in _HUGE else 60,
                quick=size == 1_000_000,
                at=size / 1e6,
                memory=size * _HUGE_NEEDS,
                rounds=2 if name in _HUGE else None,
            )
            for name, size in (_SIZES | _HUGE).items()
        ),
        axis="payload, MB",
        contenders=(*POOLS, *_EXHAUSTED),
    )
    for way in ("argument", "result")
)
