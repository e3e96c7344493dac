"""Opens the pool of a run: workers on this machine, or those of a Dask cluster.

Called by `map`, in the host, on its main thread.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pidfdpool import PidfdPoolExecutor, TaskTimeout, WorkerCrashed
from pidfdpool.cli.pacing import TARGET_SECONDS
from pidfdpool.cli.transform import FunctionFailed
from pidfdpool.cli.usage import UsageError
from pidfdpool.process import cpus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor

    from pidfdpool.cli.attempts import Attempts
    from pidfdpool.cli.target import Target

_UNKNOWN_SIZE = 16  # workers that a cluster is taken to have if it does not tell


class ClusterError(Exception):
    """The cluster cannot be used; the message tells which, and why."""


class AddressError(UsageError):
    """The address of the cluster is none."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What documents may take. timeout: seconds of one document. memory: bytes of a worker. None: any amount."""

    timeout: float | None = None
    memory: int | None = None

    @property
    def block_seconds(self) -> float:
        """The work that a block should have: a small part of the timeout, which is that of its task, too."""
        return TARGET_SECONDS if self.timeout is None else min(TARGET_SECONDS, self.timeout / 10)

    def of_pool(self) -> dict[str, Any]:
        """Return the options of the pool.

        A worker that has grown to three quarters of the limit is replaced after its block, so that what some
        documents have left behind does not cost another one its worker.
        """
        if self.memory is None:
            return {}
        return {"max_memory_per_child": self.memory // 4 * 3, "hard_memory_per_child": self.memory}


@dataclass(frozen=True, slots=True)
class Opened:
    """A pool as `flow` uses it. first: takes blocks. again: takes lines that are tried again. workers: how many.

    pool: the executor behind these.
    """

    first: Executor
    again: Executor
    workers: int
    pool: Any


@contextmanager
def opened(
    target: Target, limits: Limits, attempts: Attempts, *, workers: int | None, cluster: str | None
) -> Iterator[Opened]:
    """Open the pool for the block, at whose end it is shut down. If the block raises, its tasks are killed.

    Raises:
        AddressError: its address is none.
        ClusterError: the cluster cannot be used.
    """
    pool: Any
    if cluster is None:
        count = workers or cpus.usable()
        pool = PidfdPoolExecutor(count, preload=("pidfdpool.cli.transform", target.module), **limits.of_pool())
    else:
        pool = _connected(cluster, limits)
        count = workers or getattr(pool, "_max_workers", None) or _UNKNOWN_SIZE  # as of the standard's executors
    try:
        yield Opened(*_views(pool, limits, attempts), count, pool)
    except BaseException:
        kill = getattr(pool, "kill_workers", None)
        if kill is None:
            pool.shutdown(wait=False, cancel_futures=True)
        else:
            kill()
        raise
    finally:
        pool.shutdown()


def load_door() -> Any:
    """Return the module that opens clusters.

    Raises:
        UsageError: what it needs is not installed; the message names it.
    """
    try:
        return import_module("pidfdpool.dask")
    except ImportError as error:
        raise UsageError(f"argument --cluster: {error}") from None


def _connected(address: str, limits: Limits) -> Any:
    try:
        return load_door().open_cluster(address, **limits.of_pool())
    except Exception as error:
        told = str(error) if address in str(error) else f"cannot use {address!r}: {type(error).__name__}: {error}"
        kind = AddressError if isinstance(error, ValueError) else ClusterError
        raise kind(f"argument --cluster: {told}") from error


def _views(pool: Any, limits: Limits, attempts: Attempts) -> tuple[Executor, Executor]:
    options: dict[str, Any] = {} if limits.timeout is None else {"timeout": limits.timeout}
    first = pool.options(**options) if options else pool
    if attempts.retries_alone:
        options["retries"] = attempts.retries_alone
        options["retry_on"] = (WorkerCrashed, TaskTimeout, FunctionFailed)
    return first, pool.options(**options) if options else pool
