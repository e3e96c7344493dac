"""Runs the user's code in the template, the preload and the script, while a guard process watches the host.

Called by `process` and `server`, in the template, on its only thread. Loaded only if there is such code to run.

This keeps the promise that nothing outlives the host. A preload may take minutes, and may stay in native code that
holds the GIL, so meanwhile the template cannot watch the host itself. A forked guard does that, and kills the
template by its pidfd. Without pidfds there is no guard, and the host's death is noticed when the preload is over.
"""

from __future__ import annotations

import gc
import os
import select
from contextlib import contextmanager, nullcontext, suppress

from pidfdpool.pidfd import Pidfd, prctl
from pidfdpool.process import exiting, hygiene, native
from pidfdpool.process.native import signal
from pidfdpool.worker import identity, script_module
from pidfdpool.worker.boot import PIDFD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from pidfdpool.worker.boot import Boot


def run_preload(boot: Boot, host_fd: int) -> None:
    """Run the preload. host_fd: readable once the host is gone. Raises what the preload raises."""
    if boot.runs_script:
        _become_child_process(boot, host_fd)
    exiting.mark_as_own()
    import pidfdpool.template.reaper  # noqa: F401  the preload may leave no descriptor to read that file with

    with _guard_if_possible(boot, host_fd):
        boot.run_preload()


def run_script(boot: Boot, host_fd: int) -> None:
    """Run the host's script again, for workers to come. Workers that exist are not served meanwhile."""
    _become_child_process(boot, host_fd)
    exiting.mark_as_own()
    with _guard_if_possible(boot, host_fd):
        script_module.run_script()
    hygiene.flush_output()
    gc.freeze()


def _become_child_process(boot: Boot, host_fd: int) -> None:
    """Be a child process for `multiprocessing`: scripts ask for that, too, to guard their main part."""
    identity.become_process(identity.TEMPLATE, (), boot, host_fd)


def _guard_if_possible(boot: Boot, host_fd: int) -> AbstractContextManager[None]:
    return guarded(host_fd) if boot.handles == PIDFD else nullcontext()


@contextmanager
def guarded(host_fd: int) -> Iterator[None]:
    """Have this process killed if the host goes away within the block. host_fd: the host's pidfd."""
    with Pidfd.self() as template:
        with hygiene.signals_blocked():
            pid = native.fork()
            if not pid:
                _watch(host_fd, template)
        guard = Pidfd.open(pid)
    try:
        yield
    finally:
        guard.send_signal(signal.SIGKILL)
        guard.wait()
        guard.exit_status()
        guard.close()


def _watch(host_fd: int, template: Pidfd) -> None:
    try:
        # The template may have died before this took effect. Then its pidfd is readable.
        with suppress(OSError):  # refused by a sandbox
            prctl.set_parent_death_signal(signal.SIGKILL)
        prctl.set_name("pidfd-guard")
        poller = native.poll()
        poller.register(host_fd, select.POLLIN)
        poller.register(template.fileno(), select.POLLIN)
        poller.poll()
        template.send_signal(signal.SIGKILL)
    finally:
        os._exit(0)
