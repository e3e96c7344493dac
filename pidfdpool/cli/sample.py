"""The events that `demo` processes, and the function that is applied to them.

`generate` runs in the host, on its main thread; the functions after it run in the host and in workers.

The events are orders of a shop, and the function summarizes each of them. The same seed gives the same events.
`summarize` is an ordinary function, which `map` can use, too:

    python -m pidfdpool map pidfdpool.cli.sample:summarize events.jsonl
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Document = dict[str, Any]

_PLACES = (
    ("Reykjavík", "IS", 64.15, -21.94),
    ("Łódź", "PL", 51.76, 19.46),
    ("São Paulo", "BR", -23.55, -46.63),
    ("Nairobi", "KE", -1.29, 36.82),
    ("東京", "JP", 35.68, 139.69),
    ("Montréal", "CA", 45.50, -73.57),
)
_CATEGORIES = {
    "books": ("atlas", "cookbook", "novel", "sheet music"),
    "garden": ("hose", "rake", "seeds", "trowel"),
    "kitchen": ("kettle", "pan", "peeler", "whisk"),
    "music": ("capo", "metronome", "reeds", "strings"),
}
_STATES = ("shipped", "shipped", "shipped", "backordered", "cancelled", "returned")
_CHANNELS = ("app", "web", "phone", "partner")


def generate(documents: int, seed: int) -> Iterator[bytes]:
    """Yield events, each encoded as one line. documents: their number."""
    chance = random.Random(seed)
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    for number in range(documents):
        yield encode(_event(number, chance)).encode() + b"\n"


def _event(number: int, chance: random.Random) -> Document:
    city, country, latitude, longitude = chance.choice(_PLACES)
    return {
        "id": f"ord-{number:08d}",
        "at": f"2025-{chance.randint(1, 12):02d}-{chance.randint(1, 28):02d}T12:30:00Z",
        "channel": chance.choice(_CHANNELS),
        "user": {
            "id": chance.randint(1, 50_000),
            "name": f"User {chance.randint(1, 999)}",
            "segments": sorted(chance.sample(("new", "loyal", "vip", "lapsed", "press"), chance.randint(0, 3))),
            "address": {
                "city": city,
                "country": country,
                "geo": {
                    "lat": round(latitude + chance.uniform(-0.2, 0.2), 5),
                    "lon": round(longitude + chance.uniform(-0.2, 0.2), 5),
                },
            },
        },
        "items": [_item(chance) for _ in range(chance.randint(1, 12))],
        "clicks": [{"page": f"/p/{chance.randint(1, 400)}", "ms": chance.randint(40, 9000)} for _ in range(8)],
        "note": chance.choice((None, "gift wrap", "ring twice — the bell is broken", "")),
    }


def _item(chance: random.Random) -> Document:
    category = chance.choice(tuple(_CATEGORIES))
    return {
        "sku": f"{category[:2].upper()}-{chance.randint(1000, 9999)}",
        "name": chance.choice(_CATEGORIES[category]),
        "category": category,
        "cents": chance.randint(99, 25_000),
        "quantity": chance.randint(1, 5),
        "state": chance.choice(_STATES),
        "discounts": [{"code": f"D{chance.randint(10, 99)}", "percent": chance.choice((5, 10, 15))}]
        if chance.random() < 0.3
        else [],
    }


def summarize(event: Document) -> Document:
    """Summarize one event: filter its items, flatten it, and aggregate."""
    revenue: dict[str, int] = {}
    discount = pieces = 0
    for item in event["items"]:
        if item["state"] in ("cancelled", "returned"):
            continue
        price = item["cents"] * item["quantity"]
        saved = sum(price * cut["percent"] // 100 for cut in item["discounts"])
        revenue[item["category"]] = revenue.get(item["category"], 0) + price - saved
        discount += saved
        pieces += item["quantity"]
    times = sorted(click["ms"] for click in event["clicks"])
    address = event["user"]["address"]
    return {
        "order": event["id"],
        "day": event["at"][:10],
        "user": event["user"]["id"],
        "vip": "vip" in event["user"]["segments"],
        "place": f"{address['city']}, {address['country']}",
        "cell": [round(address["geo"]["lat"], 1), round(address["geo"]["lon"], 1)],
        "cents": sum(revenue.values()),
        "discount": discount,
        "pieces": pieces,
        "by_category": dict(sorted(revenue.items())),
        "median_ms": times[len(times) // 2],
    }


def summarize_lines(lines: bytes) -> bytes:
    """Summarize each line of a block, from JSON to JSON."""
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    return b"".join(encode(summarize(json.loads(line))).encode() + b"\n" for line in lines.splitlines())
