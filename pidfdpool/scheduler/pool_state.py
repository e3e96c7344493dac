"""What is known of a pool as a whole, and of its tasks. Plain data; see the room's docstring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidfdpool.scheduler.queue import TaskQueue
from pidfdpool.scheduler.states import Phase, Template

if TYPE_CHECKING:
    from pidfdpool.scheduler import actions as do
    from pidfdpool.scheduler.policy import Policy
    from pidfdpool.scheduler.states import Task


class PoolState:
    """The facts that several parts of a machine read and change. It has no methods: the parts hold the rules.

    Attributes:
        policy: what the pool was asked to do. Never changes.
        phase, broken: the life of the pool, and why it is broken (text for people), or None.
        template, template_booted: what is known of the template, and whether its preload is done.
        forked_at: when a template last reported a worker that it had forked.
        size: the largest number of workers, not counting those that are being replaced.
        level: the number of workers to keep, at least min_workers. It grows when tasks wait, and shrinks when
            workers idle.
        prestart: what the level is to rise to, though no tasks wait.
        tasks: number -> task, for each task that is accepted and not resolved.
        running: number -> index of the slot whose worker runs it.
        prefetched: number -> index of the slot whose worker was sent the task ahead.
        delayed: the tasks that wait until the pause before their next attempt is over.
        to_cancel: the tasks that waited when the pool was told to cancel those. No worker gets them any more.
        killing: the pool was told to end at once: no task gets another attempt.
        holds: the maps that may still go on with what their tasks have left. A pool does not end before them, unless
            it cancels its tasks. Changed by the pool's owner.
        deaths, restarts, retries, template_starts: how many there ever were.
        actions: what is to be done, in the decision that is being taken.
    """

    __slots__ = (
        "actions", "broken", "deaths", "delayed", "forked_at", "holds", "killing", "level", "phase", "policy",
        "prefetched", "prestart", "restarts", "retries", "running", "size", "tasks", "template", "template_booted",
        "template_starts", "to_cancel",
    )  # fmt: skip

    def __init__(self, policy: Policy, size: int | None = None) -> None:
        """Describe a new pool, of the policy's max_workers unless another size is given."""
        self.policy: Policy = policy
        self.phase: Phase = Phase.OPEN
        self.broken: str | None = None
        self.template: Template = Template.DOWN
        self.template_booted: bool = False
        self.forked_at: float = float("-inf")
        self.size: int = policy.max_workers if size is None else size
        self.level: int = 0
        self.prestart: int = 0
        self.tasks: dict[int, Task] = {}
        self.running: dict[int, int] = {}
        self.prefetched: dict[int, int] = {}
        self.delayed: TaskQueue = TaskQueue()
        self.to_cancel: TaskQueue = TaskQueue()
        self.killing: bool = False
        self.holds: set[object] = set()
        self.deaths: int = 0
        self.restarts: int = 0
        self.retries: int = 0
        self.template_starts: int = 0
        self.actions: list[do.Action] = []
