"""The pool of one executor: made at the first use in each process, and closed once for all.

The executor's methods call it, on any thread, and so do the hooks of `lifecycle` at exit and after a fork. It does
not know the executor's class, and refers to the executor only while a call lasts: a pool whose executor was collected
finishes its tasks and ends.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from pidfdpool import checks
from pidfdpool.executor import lifecycle
from pidfdpool.executor.open_maps import OpenMaps
from pidfdpool.loop.pool import Pool
from pidfdpool.process import locks
from pidfdpool.scheduler.states import Phase, State
from pidfdpool.worker import rebuild_guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidfdpool.deaths import Death
    from pidfdpool.loop.observed import Observer
    from pidfdpool.scheduler.policy import Policy
    from pidfdpool.template.recipe import Recipe

_OBSERVER_METHODS = ("take", "work", "pool_ended", "follows_into_forked_child")


class OwnPool:
    """The pool of an executor, if it has one now. Thread-safe; signal handlers may interrupt it and use it.

    Attributes:
        pool: None: nothing was submitted yet in this process.
        max_workers: for this pool, or for the one that will be made.
        maps: those that may have calls to submit.
        subscribers: what the executor's users want to be told of deaths; the pool reads it.
        observers: who is told what happens in the pool, this one or the one that will be made.
    """

    def __init__(self, policy: Policy, make_recipe: Callable[[], Recipe]) -> None:
        self.pool: Pool | None = None
        self.max_workers = policy.max_workers
        self.maps = OpenMaps()
        self.subscribers: list[Callable[[Death], object]] = []
        self.observers: list[Observer] = []
        self._policy = policy
        self._make_recipe = make_recipe
        self._shut_down = False
        self.lock = locks.reentrant()  # guards the state; reentrant, because signal handlers may shut down
        lifecycle.add_own_pool(self)

    def open(self, owner: object) -> Pool:
        """Return the pool, and make it at the first use in each process.

        owner: the executor. When it is collected, nobody can submit any more, and the pool ends.

        Raises:
            PoolBroken, RuntimeError: nothing can be submitted.
        """
        usable, pool = lifecycle.is_usable(), self.pool
        if usable and not self._shut_down and pool is not None and pool.machine.state.phase is Phase.OPEN:
            return pool
        with self.lock:
            pool = self.pool
            if pool is not None and pool.starter.stillborn:
                pool = self.pool = None
            if pool is not None and pool.machine.broken is not None:
                pool.check_open()
            if self._shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            lifecycle.check_not_exiting()
            if pool is None:
                rebuild_guard.check()
                pool = Pool(self._policy, self._make_recipe(), self.subscribers, self.max_workers)
                if self._shut_down:  # by a signal handler, meanwhile
                    raise RuntimeError("cannot schedule new futures after shutdown")
                pool.shut_down_with(owner, self.maps)
                lifecycle.add_pool(pool)
                for observer in self.observers:
                    pool.observe(observer)
                self.pool = pool
        return pool

    def check_open(self) -> None:
        """Raise if no task is accepted: PoolBroken, or RuntimeError if it is shut down."""
        pool = self.pool
        if pool is not None:
            pool.check_open()
        if self._shut_down:
            raise RuntimeError("the executor is shut down")

    @property
    def recipe(self) -> Recipe:
        """What the templates of the pool are made from, or will be."""
        pool = self.pool
        return self._make_recipe() if pool is None else pool.recipe

    def close(self, *, cancel: bool) -> Pool | None:
        """Accept no more tasks. Return the pool, which the caller has to shut down.

        cancel: whether maps drop the calls that they have not submitted.
        """
        lifecycle.detect_fork()
        self.finish_maps(cancel=cancel)
        with self.lock:
            self._shut_down = True
            return self.pool

    def shutdown(self, *, wait: bool, cancel: bool) -> None:
        """Accept no more tasks, and end when the accepted ones have finished, or with `cancel` those that run."""
        pool = self.close(cancel=cancel)
        if pool is not None:
            pool.shutdown(cancel=cancel)
            if wait:
                self.maps.stop_reading_here()
                pool.join()

    async def aclose(self, *, cancel: bool) -> None:
        """As `shutdown`, but wait in an event loop. If that wait is cancelled, the pool ends all the same."""
        pool = self.close(cancel=cancel)
        if pool is not None:
            pool.shutdown(cancel=cancel)
            self.maps.stop_reading_here()
            from pidfdpool.executor import wakeup  # for asyncio only

            await wakeup.wait_for_end(pool)

    def end_workers(self, number: int) -> None:
        """Accept no more tasks, cancel what waits, and send a signal to every worker."""
        pool = self.close(cancel=True)
        if pool is not None:
            pool.kill(number)

    @property
    def is_open(self) -> bool:
        """Whether tasks are accepted, as far as that depends on this pool. Takes no lock; may be stale."""
        pool = self.pool
        return not self._shut_down and (pool is None or pool.machine.state.phase is Phase.OPEN)

    def resize(self, max_workers: int) -> None:
        """Change the number of workers of the pool, or of the one that will be made."""
        lifecycle.detect_fork()
        with self.lock:
            self.max_workers, pool = max_workers, self.pool
        if pool is not None:
            pool.resize(max_workers)

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Have an observer told what happens; return what ends that, and has it told all before."""
        checks.methods("observer", observer, _OBSERVER_METHODS, "pidfdpool.Observer")
        lifecycle.detect_fork()
        pool = self.pool
        if pool is not None:
            pool.tell_observers(wait=True)  # what was noted before concerns the others; without the lock
        with self.lock:
            self.observers.append(observer)
            if self.pool is not None:
                self.pool.observe(observer)
        return partial(self.stop_observing, observer)

    def stop_observing(self, observer: Observer) -> None:
        """Tell an observer all before, and then nothing more. Does nothing if it is told nothing now."""
        lifecycle.detect_fork()
        with self.lock:
            pool = self.pool
            with suppress(ValueError):
                self.observers.remove(observer)
        if pool is not None:
            pool.stop_observing(observer)

    def finish_maps(self, *, cancel: bool) -> None:
        """Submit the remaining calls of every map, or drop them: soon nothing can be submitted any more."""
        self.maps.finish(cancel=cancel)

    def stop_reading_here(self) -> None:
        """End the streams that the calling thread reads, which waits for the pool's end now."""
        self.maps.stop_reading_here()

    def forget_pool_of_parent(self) -> None:
        """Start again in a forked child. The lock may have been copied while another thread held it."""
        self.lock = locks.reentrant()
        self.pool = None
        self.observers = [observer for observer in self.observers if observer.follows_into_forked_child()]
        self.maps.forget_in_forked_child()

    def description(self) -> str:
        """Return the state, the workers and the pending tasks in words. Takes no lock."""
        pool, busy, pending = self.pool, 0, 0
        state = "shut down" if self._shut_down else "not started" if pool is None else "open"
        if pool is not None:
            busy, pending = pool.machine.counts[State.BUSY], len(pool.machine.tasks)
            state = "broken" if pool.machine.broken is not None else state
        return f"{state}, {busy} of {self.max_workers} workers busy, {pending} tasks pending"
