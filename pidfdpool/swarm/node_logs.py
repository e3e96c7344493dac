"""What nodes log, on its way to the host's loggers.

`take` is called in the supervisor's thread and only notes the record. The host's handlers, which may block, are
called by a thread that `loop.log_emitter` starts when there is a record, and that ends when there is none.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pidfdpool.loop.log_emitter import Emitter
    from pidfdpool.swarm.links import NodeLink
    from pidfdpool.transport.framing import Frame


class NodeLogs:
    """The records of one swarm's nodes."""

    def __init__(self, name: str, swarm: object) -> None:
        """name: of the swarm. swarm: what has to stay alive while records are handed over."""
        self._name = name
        self._swarm = swarm
        self._emitter: Emitter | None = None

    def take(self, link: NodeLink, frame: Frame) -> None:
        """Take what a node has logged."""
        emitter = self._emitter
        if emitter is None:
            from pidfdpool.loop import log_emission, log_emitter  # most hosts have no use for them

            emit = partial(log_emission.emit, kind="node", process="PidfdSwarmNode")
            emitter = self._emitter = log_emitter.Emitter(self._swarm, emit)
        if frame.buffers:  # otherwise there was no memory for it
            pid = None if link.handle is None else link.handle.pid
            emitter.put((bytes(frame.buffers[0]), link.node, pid, None, self._name))
        else:
            emitter.lose()

    def join(self) -> None:
        """Wait until the records that have come are handed over, as long as that goes on."""
        if self._emitter is not None:
            self._emitter.join()

    def abandon_in_forked_child(self) -> None:
        """Forget the records: the parent hands them over."""
        if self._emitter is not None:
            self._emitter.abandon_in_forked_child()
