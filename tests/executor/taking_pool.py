"""A pool that pickles what is submitted to it, and keeps it for the test to look at."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

from pidfdpool.serialization import payload


class TakingPool:
    """Takes tasks and runs none.

    Attributes:
        taken: of each task that was submitted its recipient, call, name or function, policy, what is held of it, and
            whether its submitter waits for room.
        refusal: an error to raise in the place of taking a task.
    """

    def __init__(self, shared_main=None):
        self.taken, self.refusal, self.pickled_with = [], None, []
        self.leases = SimpleNamespace(pickled=self._pickled)
        self.recipe = SimpleNamespace(shared_main=shared_main)

    def _pickled(self, call, shared):
        self.pickled_with.append(shared)
        return payload.dumps(call)

    def submit(self, recipient, buffers, function, policy, held, *, wait):
        if self.refusal is not None:
            raise self.refusal
        head, *rest = buffers
        taken = {"recipient": recipient, "call": pickle.loads(head, buffers=rest), "function": function}
        self.taken.append(SimpleNamespace(**taken, policy=policy, held=held, wait=wait))


class Recipient:
    """Notes what becomes of its task."""

    def __init__(self):
        self.notes = []

    def _begin(self):
        self.notes.append("begun")

    def _resolve(self, result, error):
        self.notes.append((result, error))
