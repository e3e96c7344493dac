"""What a health check is told. Pure: a reading of the swarm in, an answer out."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pidfdpool.cli.swarm.http import Answer


@dataclass(frozen=True, slots=True)
class Reading:
    """The swarm as it was when the check came.

    Attributes:
        turning: whether the supervisor's thread answered in time.
        state: of the swarm, such as "running" or "stopping".
        healthy: how many nodes are healthy.
        needed: how many have to be.
        nodes: what is told of each node.
    """

    turning: bool
    state: str
    healthy: int
    needed: int
    nodes: list[dict[str, Any]]

    @property
    def problem(self) -> str | None:
        """Why the nodes are not ready for work; None: they are."""
        if not self.turning:
            return "the supervisor does not answer"
        if self.state != "running":
            return f"the swarm is {self.state}"
        if self.healthy < self.needed:
            return f"{self.healthy} of {self.needed} nodes that are needed are healthy"
        return None


def answer(path: str, reading: Reading) -> Answer | None:
    """Return what a page tells; None: there is no such page."""
    if path == "/livez":
        if reading.turning:
            return Answer(HTTPStatus.OK, {"live": True})
        return Answer(HTTPStatus.SERVICE_UNAVAILABLE, {"live": False, "why": "the supervisor does not answer"})
    if path == "/readyz":
        counts = {"healthy": reading.healthy, "needed": reading.needed}
        if reading.problem is None:
            return Answer(HTTPStatus.OK, {"ready": True, **counts})
        return Answer(HTTPStatus.SERVICE_UNAVAILABLE, {"ready": False, "why": reading.problem, **counts})
    if path == "/status":
        document = {
            "state": reading.state,
            "turning": reading.turning,
            "healthy": reading.healthy,
            "needed": reading.needed,
            "nodes": reading.nodes,
        }
        return Answer(HTTPStatus.OK, document)
    return None
