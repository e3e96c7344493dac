"""What client and nodes send each other: requests, and their answers. Data only.

The scheduler opens requests, too, as far as their fields: it has to have this package installed, as dask asks for in
general. It does not open payloads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pidfdpool.integrations.dask_cluster.calls import Made
    from pidfdpool.integrations.dask_cluster.payloads import Payload

Key = tuple[str, int]
MARK = "-pidfdpool-"  # in the first part of each key
LOST = "pidfdpool-lost"  # the annotation with the nodes on which a request was lost


class PoolSettings(NamedTuple):
    """The pool that a node is to run calls in. Requests with equal settings share one."""

    owner: str  # the executor, which closes it
    payload: Payload  # the arguments of its constructor


@dataclass(frozen=True, slots=True)
class Request:
    """One or more calls for a node. A class of its own, so that dask does not look for futures in it."""

    key: Key
    topic: str  # by which the node tells that it has begun
    pool: PoolSettings
    options: dict[str, Any]  # of tasks, for the pool
    retries: int
    survives_loss: bool
    retry_on: Payload | None
    name: str  # of the function
    function: Payload | None  # of a map
    calls: tuple[Payload, ...]
    first: int | None  # which call of its map the first is; None: it is a call for which a future waits


@dataclass(frozen=True, slots=True)
class Answer:
    """What has become of a request."""

    node: str  # the address of the dask worker
    made: list[Made]  # one for each call
    worker: tuple[int, int, int | None] | None = None  # of the node's pool, which has made the call
    attempt: int = 0
    started_at: float | None = None  # in time.time()'s seconds, by the node's clock

    def __sizeof__(self) -> int:
        """Return the bytes that it holds, by which dask accounts for it."""
        return 200 + sum(each.payload.__sizeof__() for each in self.made)


def owner_of(key: Key) -> str:
    """Return the executor that a request belongs to."""
    return key[0].rpartition(MARK)[2]


def is_ours(key: Any) -> bool:
    """Return whether a key of dask's is that of a request."""
    return type(key) is tuple and len(key) == 2 and isinstance(key[0], str) and MARK in key[0]
