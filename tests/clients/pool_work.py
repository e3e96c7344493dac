"""What the clients of a pool compute in workers."""

from __future__ import annotations

from typing import Any


def square(value: int) -> int:
    return value * value


def log_probability(point: Any) -> float:
    return float(-0.5 * (point**2).sum())


def cost(point: Any) -> float:
    x, y = point
    return float((1 - x) ** 2 + 100 * (y - x * x) ** 2)


def summarize(frame: Any) -> Any:
    return frame.groupby("key")["value"].sum()


def split_text(text: str) -> list[str]:
    return text.split()
