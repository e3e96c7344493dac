"""What one pool's host has to do with the logs of workers: it tells them levels, and takes their records.

The thread that sends a task calls `LogRelay.update`, under the pool's lock. The thread that reads a worker's answers
calls `take`, without it. Both only note something: the host's handlers, which may block, are called by a thread that
`log_emitter` starts when there is a record, and that ends when there is none.
"""

from __future__ import annotations

import _pickle
from typing import TYPE_CHECKING

from pidfdpool.loop.log_emitter import Emitter
from pidfdpool.process import log_levels
from pidfdpool.transport import framing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pidfdpool.loop.links import WorkerLink
    from pidfdpool.loop.task import Task
    from pidfdpool.process.log_levels import Levels
    from pidfdpool.template.recipe import Recipe
    from pidfdpool.transport.framing import Frame


class LogRelay:
    """The logs of one pool's workers. Made with the pool, unless nothing is forwarded."""

    def __init__(self, recipe: Recipe, pool: object) -> None:
        """pool: what has to stay alive while records are handed over, so that the interpreter's exit waits for it."""
        self._recipe = recipe
        self._version = -1
        self._levels: Levels | None = None  # of the host's loggers
        self._emitter = Emitter(pool)

    def update(self, link: WorkerLink) -> None:
        """Tell a worker that is about to get a task the levels, if they have changed. The caller has the lock."""
        told = self._recipe.log_levels
        if told is None:
            return  # nothing is forwarded
        version = log_levels.version()
        if version != self._version:
            self._version = version  # first: a change from here on is noticed
            levels = log_levels.current()
            if levels != self._levels:
                self._levels = levels
        wanted = self._levels
        if link.log_levels is wanted:
            return
        if link.log_levels is not None or told != wanted:
            link.post(framing.encode(framing.LOG_LEVELS, buffers=[_pickle.dumps(wanted)]))
        link.log_levels = wanted

    def take(self, link: WorkerLink, frame: Frame, tasks: Mapping[int, Task]) -> None:
        """Take what a worker has logged. In the thread that reads its answers."""
        if frame.buffers:  # otherwise there was no memory for it
            task = tasks.get(frame.value)
            name = None if task is None else task.name
            slot, _, pid = link.name
            self._emitter.put((bytes(frame.buffers[0]), slot, pid, frame.value or None, name))
        else:
            self._emitter.lose()

    def join(self) -> None:
        """Wait until the records that have come are handed over, as long as that goes on."""
        self._emitter.join()

    def abandon_in_forked_child(self) -> None:
        """Forget the records: the parent hands them over."""
        self._emitter.abandon_in_forked_child()
