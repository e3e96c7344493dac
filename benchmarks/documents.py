"""Documents of a given size: pieces of real ones, from the folder that PIDFDPOOL_BENCH_DATA names, or made up."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

VARIABLE = "PIDFDPOOL_BENCH_DATA"


def documents(size: int, count: int) -> list[bytes]:
    """Return so many documents of about that size; fewer distinct ones are repeated."""
    folder = os.environ.get(VARIABLE)
    pieces: list[bytes] = []
    if folder:
        for path in sorted(Path(folder).glob("*.json")):
            pieces += islice(_pieces(json.loads(path.read_bytes()), size), count)
    return list(islice(cycle(pieces or list(islice(_made_up(size), min(count, 20)))), count))


def source() -> str:
    """Say where the documents come from."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        return "made up"
    return ", ".join(path.name for path in sorted(Path(folder).glob("*.json"))) or "made up"


def _pieces(value: Any, size: int) -> Iterator[bytes]:
    """Yield parts of a value that are about so long: it itself, runs of what it contains, or parts of that."""
    whole = json.dumps(value).encode()
    if len(whole) < size / 2:
        return
    if len(whole) < size * 1.4:
        yield whole
        return
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    run: dict[Any, Any] = {}
    length = 0
    for key, part in inner:
        own = len(json.dumps(part))
        if own > size * 1.4:
            yield from _pieces(part, size)
            continue
        run[key] = part
        length += own
        if length > size * 0.8:
            yield json.dumps(run if isinstance(value, dict) else list(run.values())).encode()
            run, length = {}, 0


def _made_up(size: int) -> Iterator[bytes]:
    """Yield documents of events with text, numbers and nesting. The same ones each time."""
    chance = random.Random(7)
    while True:
        events: list[dict[str, Any]] = []
        length = 0
        while length < size * 0.95:
            events.append(
                {
                    "id": chance.randrange(10**9),
                    "name": "".join(chance.choices("abcdefghij é", k=20)),
                    "position": [chance.uniform(-180, 180), chance.uniform(-90, 90)],
                    "tags": {"kind": chance.choice(("a", "b", "c")), "valid": chance.random() < 0.5, "none": None},
                }
            )
            length += len(json.dumps(events[-1])) + 2
        yield json.dumps(events).encode()
