"""Queues of which a swarm of consumers takes messages: in a file, or in Redis. Each is handled at least once.

A consumer *claims* messages under its number, and *acknowledges* them when they are handled. When the next process
of that number begins, it gives back what its predecessor had claimed. That is safe because a swarm never starts a
process of a node while the one before it lives, so nobody else uses the number.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence


def opened(place: str) -> FileQueue | RedisQueue:
    """Return the queue at a place: redis://HOST:PORT, or the path of a file."""
    return RedisQueue(place) if place.startswith("redis://") else FileQueue(place)


class FileQueue:
    """A queue in a file. Each process opens its own."""

    def __init__(self, path: str) -> None:
        self._database = sqlite3.connect(path, timeout=60, isolation_level=None)
        self._database.execute("PRAGMA synchronous = OFF")  # processes may die, the machine does not
        self._database.execute("CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, claimed_by INTEGER)")
        self._database.execute("CREATE TABLE IF NOT EXISTS handled (id INTEGER, by INTEGER)")

    def put(self, messages: Iterable[int]) -> None:
        self._database.execute("BEGIN")
        self._database.executemany("INSERT INTO messages (id) VALUES (?)", [(number,) for number in messages])
        self._database.execute("COMMIT")

    def give_back(self, consumer: int) -> None:
        self._database.execute("UPDATE messages SET claimed_by = NULL WHERE claimed_by = ?", (consumer,))

    def claim(self, consumer: int, most: int) -> list[int]:
        found = self._database.execute(
            "UPDATE messages SET claimed_by = ? WHERE id IN"
            " (SELECT id FROM messages WHERE claimed_by IS NULL LIMIT ?) RETURNING id",
            (consumer, most),
        )
        return [number for (number,) in found.fetchall()]

    def acknowledge(self, consumer: int, messages: Sequence[int]) -> None:
        """Note that these are handled, and forget them, in one step."""
        self._database.execute("BEGIN IMMEDIATE")
        self._database.executemany("INSERT INTO handled VALUES (?, ?)", [(number, consumer) for number in messages])
        self._database.executemany("DELETE FROM messages WHERE id = ?", [(number,) for number in messages])
        self._database.execute("COMMIT")

    def is_empty(self) -> bool:
        """Return whether no message is left, claimed or not."""
        return self._database.execute("SELECT NOT EXISTS (SELECT 1 FROM messages)").fetchone()[0] == 1

    def handled(self) -> list[int]:
        return [number for (number,) in self._database.execute("SELECT id FROM handled")]

    def close(self) -> None:
        self._database.close()


class RedisQueue:
    """The same in Redis: a list of what waits, one of what each consumer has claimed, and one of what is handled."""

    def __init__(self, url: str) -> None:
        import redis

        self._redis = redis.Redis.from_url(url, socket_timeout=30)

    def put(self, messages: Iterable[int]) -> None:
        self._redis.rpush("messages", *messages)

    def give_back(self, consumer: int) -> None:
        while self._redis.lmove(f"claimed-{consumer}", "messages", "RIGHT", "LEFT") is not None:
            pass

    def claim(self, consumer: int, most: int) -> list[int]:
        pipeline = self._redis.pipeline(transaction=False)
        for _ in range(most):
            pipeline.lmove("messages", f"claimed-{consumer}", "LEFT", "RIGHT")
        return [int(number) for number in pipeline.execute() if number is not None]

    def acknowledge(self, consumer: int, messages: Sequence[int]) -> None:
        pipeline = self._redis.pipeline(transaction=True)
        for number in messages:
            pipeline.lrem(f"claimed-{consumer}", 1, number)
            pipeline.rpush("handled", number)
        pipeline.execute()

    def is_empty(self) -> bool:
        return not self._redis.exists("messages", *[f"claimed-{consumer}" for consumer in range(8)])

    def handled(self) -> list[int]:
        return [int(number) for number in self._redis.lrange("handled", 0, -1)]

    def close(self) -> None:
        self._redis.close()
