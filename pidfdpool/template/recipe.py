"""What a pool's templates are made from: how they start, what they preload, and the initializer of their workers.

Made in the host, by the thread that makes the executor, and kept for the life of the pool. `client` reads it at each
start of a template, on the thread that starts it. Template and workers get what they need of it as a `Boot`.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from pidfdpool.process import log_levels, native
from pidfdpool.serialization import inherited, payload, picklers, preparation, scripts
from pidfdpool.worker import context
from pidfdpool.worker.boot import WORKER_PROGRAM, Boot

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from pidfdpool.process.log_levels import Levels
    from pidfdpool.worker.log_forwarding import Settings

    # None: by default; a least level; or names of loggers
    LogChoice: TypeAlias = bool | int | tuple[str, ...] | None


class Recipe:
    """The parameters of a pool's templates. They are the same for each of its templates.

    way: "exec", "fork", or "any": exec, unless the initializer's arguments can only be inherited by a fork.
    """

    def __init__(
        self,
        *,
        way: str,
        preload: tuple[str, ...],
        preload_call: Callable[[], object] | None,
        initializer: tuple[Callable[..., object], tuple[Any, ...]] | None,
        watch_memory: bool = False,
        capture_stderr: bool = False,
        spin: float = 0.0,
        forward_logs: LogChoice = None,
        threads: int | None = None,
        pool_size: int = 1,
        program: tuple[str, str] = WORKER_PROGRAM,
    ) -> None:
        self.fork: bool = way == "fork" or (way == "any" and _needs_fork(initializer))
        self.preload = preload
        self.preload_call = preload_call
        self.initializer = initializer
        self.watch_memory = watch_memory
        self.capture_stderr = capture_stderr
        self.spin = spin
        self.forward_logs: LogChoice = forward_logs
        self.log_levels: Levels | None = None  # what the last template was told, if logs are forwarded
        self.threads = threads
        self.pool_size = pool_size
        self.program = program
        self.runs_script: bool = False  # some call needs a global that only running the host's script again can make
        # A template that is forked from here has what `__main__` holds now, and its workers have it, too.
        self.shared_main: payload.SharedMain | None = (
            payload.SharedMain(sys.modules.get("__main__")) if self.fork else None
        )

    @property
    def may_forward_logs(self) -> bool:
        """Whether the host may be sent what workers log."""
        return self.forward_logs is not False and not (self.forward_logs is None and self.fork)

    def boot(self, handles: str) -> tuple[Boot, list[int]]:
        """Return what the template is told, and the descriptors that it needs. The caller owns these.

        handles: `boot.PIDFD` or `boot.SENTINEL`, the kind of handle that this kernel has.

        Raises:
            OSError: no descriptor is left.
            Exception: a call cannot be pickled (exec way).
        """
        fds: list[int] = []
        call: Any = self.preload_call
        initializer: Any = self.initializer
        if not self.fork:
            call = payload.dumps(call) if call is not None else None
            if initializer is not None:
                initializer, fds = inherited.capture(initializer)
            for buffers in (call, initializer):
                if buffers is not None and payload.needs_script(buffers):
                    self.runs_script = True
        if picklers.shared_resources:
            picklers.pop_shared_resources()  # what the calls share stays shared, for each later template
        logs = self._log_settings()
        from multiprocessing import process

        me = process.current_process()
        boot = Boot(
            handles=handles,
            host_pid=os.getpid(),
            host_name=me.name,
            argv=list(sys.argv),
            authkey=bytes(me.authkey),
            preload=self.preload,
            forked=self.fork,
            preload_call=call,
            initializer=initializer,
            watch_memory=self.watch_memory,
            capture_stderr=self.capture_stderr,
            spin=self.spin,
            threads=self.threads,
            pool_size=self.pool_size * (context.worker.siblings if context.worker is not None else 1),
            script=None if self.fork else scripts.current().as_fields(),
            runs_script=self.runs_script and not self.fork,
            preparation=None if self.fork else preparation.capture(),
            logs=logs,
            program=self.program,
        )
        return boot, fds

    def _log_settings(self) -> Settings | None:
        """Return what workers have to know to send the host what they log; None: they keep it.

        By default it is sent from fresh interpreters if this program has set up logging. In the fork way workers have
        the host's handlers, as those of the standard pool.
        """
        choice = self.forward_logs
        if not self.may_forward_logs:
            return None
        if choice is None and self.log_levels is None and not log_levels.is_configured():
            self.forward_logs = False  # decided once, at the first submit
            return None
        least = choice if type(choice) is int else 0
        names = choice if type(choice) is tuple else None
        self.log_levels = log_levels.current()
        return choice is not None, least, names, self.log_levels


def _needs_fork(initializer: object) -> bool:
    """Return whether the initializer's arguments can be shared by a fork only."""
    if initializer is None or "multiprocessing.synchronize" not in sys.modules:
        return False
    try:
        _, fds = inherited.capture(initializer)
    except inherited.NeedsFork:
        return True
    except Exception:
        return False  # the start of the template will report what is wrong with them
    for fd in fds:
        native.close(fd)
    return False
