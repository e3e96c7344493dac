"""What the workers do with JSON documents."""

from __future__ import annotations

import json


def transform(document: bytes) -> bytes:
    """Parse a document, change it everywhere, and write it anew."""
    return json.dumps(_rounded(json.loads(document))).encode()


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return round(value, 3) if isinstance(value, float) else value
