"""The tests of CPython's suite that differ here, each with its reason; all others must pass."""

from __future__ import annotations

from dataclasses import dataclass, replace

METHODS = ("fork", "forkserver", "spawn")
_WITHOUT_FORK = METHODS[1:]  # the test skips itself with fork


@dataclass(frozen=True)
class Difference:
    """Why a test fails.

    Attributes:
        reason: what to tell somebody who wonders whether it matters to them.
        seen: what the test's failure says, by which it is known to fail for this reason and no other; one of these.
        methods: the start methods with which it fails.
        since: the minor version of Python whose suite is the first to have the test.
    """

    reason: str
    seen: tuple[str, ...]
    methods: tuple[str, ...] = METHODS
    since: int = 13


def _private(name: str, instead: str) -> Difference:
    reason = f"looks into the private attribute `{name}`; {instead}"
    return Difference(reason, (f"object has no attribute '{name}'",))


_PROCESSES = _private("_processes", "our workers are the template's children, and `workers()` tells of them")
_THREAD = _private("_executor_manager_thread", "ours has a pool thread that is nobody else's to join")
_MOCKED = Difference(
    "replaces the private method `_force_shutdown` and expects that it is called; what the public method does is "
    "tested with the pool",
    ("Expected 'mock' to be called once. Called 0 times.",),
    since=14,
)
_RECYCLED = replace(_THREAD, methods=_WITHOUT_FORK, since=14)
_ISOLATED = (
    "expects that a payload which does not unpickle breaks the whole pool; here it fails its own future, with the "
    "reason, and the pool goes on"
)

DIFFERS: dict[str, Difference] = {
    # What is asserted is an attribute that only the standard's implementation has.
    "test_broken_process_pool_traceback": replace(_PROCESSES, since=14),
    "test_context_manager_shutdown": _PROCESSES,
    "test_force_shutdown_workers": replace(_PROCESSES, since=14),
    "test_force_shutdown_workers_stops_pool": replace(_PROCESSES, since=14),
    "test_idle_process_reuse_multiple": replace(_PROCESSES, methods=_WITHOUT_FORK),
    "test_idle_process_reuse_one": replace(_PROCESSES, methods=_WITHOUT_FORK),
    "test_killed_child": _PROCESSES,
    "test_processes_terminate": _PROCESSES,
    "test_saturation": _PROCESSES,
    "test_shutdown_no_wait": _PROCESSES,
    "test_del_shutdown": _THREAD,
    "test_failed_worker_replacement_breaks_pool": _RECYCLED,
    "test_force_shutdown_during_max_tasks_worker_exit": _RECYCLED,
    "test_gc_during_max_tasks_worker_exit_gh152967": _RECYCLED,
    "test_shutdown_deadlock_pickle": _THREAD,
    "test_shutdown_gh_132969_case_1": _RECYCLED,
    "test_shutdown_gh_132969_case_2": _RECYCLED,
    "test_shutdown_no_wait_max_tasks_gh119592": _RECYCLED,
    "test_kill_workers": _MOCKED,
    "test_terminate_workers": _MOCKED,
    "test_max_tasks_per_child_defaults_to_spawn_context": Difference(
        "expects the context that was chosen in the private attribute `_mp_context`; ours holds what was given",
        ("'NoneType' object has no attribute 'get_start_method'",),
    ),
    "FailingInitializerTest.test_initializer": _private("_broken", "a submit tells that a pool is broken"),
    "test_python_finalization_error": Difference(
        "lets the start of a pool's second thread fail and expects a broken pool; ours has one thread only",
        # The task has run; or the interpreter is older than the suite, and has not what is to fail.
        ("mul() missing 1 required positional argument", "has no attribute '_start_joinable_thread'"),
    ),
    "test_cancel_futures": Difference(
        "expects that a pool which is shut down at once has started a task already: the standard counts what lies in "
        "its call queue as running; here a task can be cancelled until a worker is there to take it",
        ("0 not greater than 0",),
    ),
    # What is asserted is a limit of the standard that ours does not have.
    "ProcessPoolForkProcessPoolExecutorTest.test_max_tasks_per_child": Difference(
        "expects a ValueError, because the standard cannot replace workers with fork; here that is supported",
        ("ValueError not raised",),
        methods=("fork",),
    ),
    "test_max_tasks_per_child": replace(_PROCESSES, methods=_WITHOUT_FORK),
    "test_error_at_task_unpickle": Difference(_ISOLATED, ("UnpicklingError",)),
    "test_exit_at_task_unpickle": Difference(_ISOLATED, ("SystemExit",)),
    "test_error_during_result_unpickle_in_result_handler": Difference(_ISOLATED, ("PayloadError",)),
    "test_exit_during_result_unpickle_in_result_handler": Difference(_ISOLATED, ("PayloadError",)),
}

# It passes where a worker was up before the shutdown came.
MAY_PASS = frozenset({"test_cancel_futures"})


def difference(group: str, test: str) -> Difference | None:
    """Return why `test` of the class `group` (such as ProcessPoolForkWaitTest) differs, or None if it must pass."""
    method = start_method(group)
    for name, differs in DIFFERS.items():
        of, _, bare = name.rpartition(".")
        if bare == test and group.endswith(of) and method in differs.methods:
            return differs
    return None


def start_method(group: str) -> str:
    """Return the start method that the class `group` is about."""
    rest = group.removeprefix("ProcessPool")
    return next(method for method in ("forkserver", "fork", "spawn") if rest.startswith(method.capitalize()))
