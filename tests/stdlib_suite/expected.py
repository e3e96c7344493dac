"""The tests of CPython's suite that differ here, each with its reason; all others must pass."""

from __future__ import annotations

_PROCESSES = "looks into the attribute `_processes`; ours are the template's children, known by `pool._pool` alone"
_THREAD = "waits for the attribute `_executor_manager_thread`"
_ISOLATED = (
    "expects that a payload which does not unpickle breaks the whole pool; here it fails its own future, with the "
    "reason, and the pool goes on"
)

# test: (start methods, or None for all; reason)
DIFFERS: dict[str, tuple[tuple[str, ...] | None, str]] = {
    # What is asserted is an attribute that only the standard's implementation has.
    "test_context_manager_shutdown": (None, _PROCESSES),
    "test_idle_process_reuse_multiple": (("spawn", "forkserver"), _PROCESSES),
    "test_idle_process_reuse_one": (("spawn", "forkserver"), _PROCESSES),
    "test_killed_child": (None, _PROCESSES),
    "test_processes_terminate": (None, _PROCESSES),
    "test_saturation": (None, _PROCESSES),
    "test_shutdown_no_wait": (None, _PROCESSES),
    "test_del_shutdown": (None, _THREAD),
    "test_shutdown_deadlock_pickle": (None, _THREAD),
    "test_max_tasks_per_child_defaults_to_spawn_context": (None, "reads the attribute `_mp_context`"),
    "FailingInitializerTest.test_initializer": (None, "polls the attribute `_broken`"),
    "test_python_finalization_error": (
        None,
        "lets the start of a pool's second thread fail and expects a broken pool; ours has one thread only",
    ),
    "test_cancel_futures": (
        None,
        "expects that a pool which is shut down at once has started a task already: the standard counts what lies in "
        "its call queue as running; here a task can be cancelled until a worker is there to take it",
    ),
    # What is asserted is a limit of the standard that ours does not have.
    "test_max_tasks_per_child": (
        None,
        "expects a ValueError with fork, which is supported here; otherwise " + _PROCESSES,
    ),
    "test_error_at_task_unpickle": (None, _ISOLATED),
    "test_exit_at_task_unpickle": (None, _ISOLATED),
    "test_error_during_result_unpickle_in_result_handler": (None, _ISOLATED),
    "test_exit_during_result_unpickle_in_result_handler": (None, _ISOLATED),
}

# It passes where a worker was up before the shutdown came.
MAY_PASS = frozenset({"test_cancel_futures"})


def reason_to_differ(group: str, test: str) -> str | None:
    """Return why `test` of the class `group` (such as ProcessPoolForkWaitTest) differs, or None if it must pass."""
    method = start_method(group)
    for name, (methods, reason) in DIFFERS.items():
        of, _, bare = name.rpartition(".")
        if bare == test and group.endswith(of) and (methods is None or method in methods):
            return reason
    return None


def start_method(group: str) -> str:
    """Return the start method that the class `group` is about."""
    rest = group.removeprefix("ProcessPool")
    return next(method for method in ("forkserver", "fork", "spawn") if rest.startswith(method.capitalize()))
