"""The parameters that a template and its workers get at their start.

Made in the host by `template.recipe`, on the thread that starts the template; read in the template and in the
workers, on their only thread. In the exec way they are sent over a channel as one BOOT frame, and the user's calls
are opaque bytes until a worker (or the preload) needs them. In the fork way they are simply inherited, and the calls
are the host's own objects.
"""

from __future__ import annotations

import _pickle
import os

from pidfdpool.serialization import payload, picklers, preparation, scripts
from pidfdpool.worker import context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from pidfdpool.transport.framing import Buffer
    from pidfdpool.worker.log_forwarding import Settings

# The kinds of handles by which host and template name processes: pidfds, or pipes where there are no pidfds.
PIDFD = "pidfd"
SENTINEL = "sentinel"
# Before the number of standard error. Pidfds; and the process that gets this is no launcher, but the template itself.
DETACHED = "detached"
# What a forked child runs: a module and a class in it, whose object takes what a worker's does, and has a `run`. The
# class may name signals that are blocked from the fork on, in its attribute `HELD_SIGNALS`.
WORKER_PROGRAM = ("pidfdpool.worker.process", "Worker")


class Boot:
    """Plain data about the host, and up to two calls: the preload callable and the initializer."""

    __slots__ = (
        "_descriptors",
        "_initializer",
        "_preload_call",
        "argv",
        "authkey",
        "capture_stderr",
        "forked",
        "handles",
        "host_name",
        "host_pid",
        "logs",
        "pool_size",
        "preload",
        "preparation",
        "program",
        "runs_script",
        "script",
        "spin",
        "threads",
        "watch_memory",
    )

    def __init__(
        self,
        *,
        handles: str,
        host_pid: int,
        host_name: str,
        argv: list[str],
        authkey: bytes | None,
        preload: Sequence[str],
        forked: bool,
        preload_call: Callable[[], object] | Sequence[Buffer] | None,
        initializer: tuple[Callable[..., object], tuple[Any, ...]] | Sequence[Buffer] | None,
        watch_memory: bool = False,
        capture_stderr: bool = False,
        spin: float = 0.0,
        threads: int | None = None,
        pool_size: int = 1,
        script: tuple[Any, ...] | None = None,
        runs_script: bool = False,
        preparation: bytes | None = None,
        logs: Settings | None = None,
        program: tuple[str, str] = WORKER_PROGRAM,
    ) -> None:
        self.handles: str = handles
        self.host_pid: int = host_pid
        self.host_name: str = host_name
        self.argv: list[str] = argv
        self.authkey: bytes | None = authkey
        self.preload: Sequence[str] = preload
        self.forked: bool = forked
        self.watch_memory: bool = watch_memory  # each answer contains the worker's memory usage
        self.capture_stderr: bool = capture_stderr  # workers' standard error goes to the host, through a pipe
        self.spin: float = spin  # seconds that a worker polls for the next task before it sleeps
        self.threads: int | None = threads  # that numerical libraries may use in a worker; None: they decide
        self.pool_size: int = pool_size  # the most workers that share the CPUs with this one, itself included
        # The arguments of `scripts.Script`; None: the host's own `__main__` is here.
        self.script: tuple[Any, ...] | None = script
        self.runs_script: bool = runs_script  # the template runs the script again before it forks the first worker
        # What tools have added to multiprocessing's data for a new process.
        self.preparation: bytes | None = preparation
        self.logs: Settings | None = logs  # None: what workers log stays with them
        self.program: tuple[str, str] = program
        self._preload_call: Any = preload_call
        self._initializer: Any = initializer
        self._descriptors: list[int] = []

    # ---- sent over the channel (exec way) ------------------------------------------------------------------

    def dump(self) -> list[Buffer]:
        """Return the buffers of the BOOT frame."""
        fields = {name: getattr(self, name) for name in self.__slots__ if not name.startswith("_")}
        buffers = [self._preload_call, self._initializer]
        plain = _pickle.dumps((fields, [call is not None for call in buffers]), picklers.PROTOCOL)
        return [plain, *(bytes(call[0]) for call in buffers if call is not None)]

    @classmethod
    def load(cls, buffers: Sequence[Buffer], descriptors: list[int]) -> Boot:
        """Rebuild it in the template. descriptors: those that the initializer's arguments need."""
        fields, present = _pickle.loads(buffers[0])
        rest = iter(buffers[1:])
        preload_call, initializer = ([next(rest)] if is_present else None for is_present in present)
        boot = cls(preload_call=preload_call, initializer=initializer, **fields)
        boot._descriptors = descriptors
        return boot

    @property
    def has_preload(self) -> bool:
        """Whether any code of the user's is to run in the template."""
        named = self.preload or self.runs_script
        return bool(named) or self._preload_call is not None or self.preparation is not None

    @property
    def has_initializer(self) -> bool:
        """Whether any code of the user's is to run in each worker before its first task."""
        return self._initializer is not None

    # ---- the calls -----------------------------------------------------------------------------------------

    def limit_threads(self) -> None:
        """Limit the threads of numerical libraries, if that is wanted. In the template, before the preload."""
        if self.threads is not None:
            from pidfdpool.worker import thread_limits

            thread_limits.apply(self.threads)

    def run_preload(self) -> None:
        """Let tools set themselves up, import modules, run the script if asked to, and call the preload callable.

        In the template. Raises what they raise.
        """
        if self.preparation is not None:
            preparation.restore(self.preparation)
        if self.program == WORKER_PROGRAM:
            self._import_preload()
        else:  # among the modules is that of the target, which may start the swarm that this template belongs to
            from pidfdpool.worker import rebuild_guard

            with rebuild_guard.during(rebuild_guard.TARGET):
                self._import_preload()
        if self.runs_script:
            _run_script()
        if self._preload_call is not None:
            call = self._preload_call
            if not self.forked:
                from multiprocessing import process

                if self.authkey is not None:
                    process.current_process().authkey = self.authkey  # with which shared descriptors are fetched
                call = self._load_call(call)
            call()

    def _import_preload(self) -> None:
        for name in self.preload:
            __import__(name)

    def _load_call(self, call: Sequence[Buffer]) -> Any:
        try:
            return payload.loads(call)
        except scripts.NeedsScript:
            _run_script()
            return payload.loads(call)

    def run_initializer(self) -> None:
        """Call the initializer, if there is one. In a worker. Raises what it raises."""
        context.worker = context.WorkerPlace(os.getpid(), self.pool_size)
        if self._initializer is not None:
            function, arguments = self.load_initializer()
            function(*arguments)

    def load_initializer(self) -> tuple[Callable[..., object], tuple[Any, ...]]:
        """Return the initializer and its arguments, rebuilt in this process. Raises what rebuilding them raises."""
        if self.forked:
            return self._initializer  # type: ignore[no-any-return]
        from pidfdpool.serialization import inherited
        from pidfdpool.worker import rebuild_guard

        with rebuild_guard.during(rebuild_guard.INITIALIZER):
            call: tuple[Callable[..., object], tuple[Any, ...]] = inherited.restore(
                self._initializer, self._descriptors
            )
            return call


def _run_script() -> None:
    from pidfdpool.worker import script_module  # the host, which loads this file, does not need it

    script_module.run_script()
