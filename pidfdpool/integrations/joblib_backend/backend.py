"""The backend "pidfdpool" of joblib: what `joblib.Parallel` submits its batches to.

joblib decides how many calls a batch has, by the time that earlier ones took. Each batch is one task of a pool that
all calls of joblib share. Large arrays travel in shared memory, so joblib's own files for them are not used.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, cast

from joblib.parallel import (
    AutoBatchingMixin,
    BatchedCalls,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
    cpu_count,
)

from pidfdpool.integrations.joblib_backend import pools
from pidfdpool.integrations.joblib_backend.batches import Batch
from pidfdpool.integrations.joblib_backend.preload import Preload

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

# What joblib passes to every backend, and what concerns those that write arrays to files.
_NOT_OURS = ("max_nbytes", "temp_folder", "mmap_mode", "verbose", "context")


class PidfdPoolBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs the batches of `joblib.Parallel` in workers of pidfdpool.

    `joblib.parallel_config("pidfdpool", n_jobs=4, timeout=60)`: what joblib does not know are options of
    `PidfdPoolExecutor`, among them initializer, preload and mp_context. An option for tasks applies to a batch.
    `inner_max_num_threads` limits the threads of numerical libraries in each worker; the default is the share of the
    CPUs that a worker has.

    One instance serves one call of Parallel at a time, as joblib has it.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True

    _executor: Any = None

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._futures: set[Any] = set()  # of the batches that are under way

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many workers n_jobs means: negative numbers count from the number of CPUs, as in joblib.

        Raises:
            ValueError: it is 0.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(cpu_count() + 1 + n_jobs, 1)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        prefer: str | None = None,  # noqa: ARG002
        require: str | None = None,  # noqa: ARG002
        **settings: Any,
    ) -> int:
        """Get ready for a call of Parallel, and return the number of workers.

        Raises:
            TypeError, ValueError: there is no such option, or its value makes no sense.
        """
        workers = self.effective_n_jobs(n_jobs)
        if workers == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        settings = {**self.backend_kwargs, **settings}
        for name in _NOT_OURS:
            settings.pop(name, None)
        variables = self._prepare_worker_env(n_jobs=workers)
        most = self.inner_max_num_threads or max(cpu_count() // workers, 1)
        settings["preload"] = Preload(variables, most, *_parts_of(settings.get("preload", ())))
        self._executor = pools.shared(workers, settings)
        self.parallel = parallel
        return workers

    def submit(self, func: Any, callback: Callable[[Any], object] | None = None) -> Future[Any]:
        """Submit a batch, a `joblib.parallel.BatchedCalls`, and return its future."""
        future: Future[Any] = self._executor.submit(self._as_it_travels(func))
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def _as_it_travels(self, batch: Any) -> Callable[[], Any]:
        if type(batch) is not BatchedCalls:
            return cast("Callable[[], Any]", batch)
        nested = {"backend": batch._backend, "n_jobs": batch._n_jobs}
        return Batch(batch.items, pickle.dumps(nested))

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return the results of a batch, or raise its exception."""
        return out.result()

    def terminate(self) -> None:
        """Keep the workers for the calls that follow."""
        self._executor = None
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End the batches of this call, by ending the workers that run them. Other calls go on."""
        for future in list(self._futures):
            future.kill()
        self.reset_batch_stats()
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel, **self.parallel._backend_kwargs)


def _parts_of(preload: Any) -> tuple[tuple[str, ...], Callable[[], object] | None]:
    """Return the modules and the callable of what the user wants to be loaded."""
    items = (preload,) if isinstance(preload, str) or callable(preload) else tuple(preload)
    calls = [item for item in items if callable(item)]
    if len(calls) > 1:
        raise ValueError(f"preload takes at most one callable, not {calls!r}")
    return tuple(item for item in items if not callable(item)), calls[0] if calls else None
