"""Keeps the promise that nothing outlives the host while the template runs the user's preload.

A preload may take minutes, and may sit in native code that holds the GIL, so the template cannot watch the host
meanwhile. A forked guard does, and kills the template by its pidfd. Without pidfds there is no guard: then the
host's death is noticed when the preload is over.
"""

from __future__ import annotations

import os
import select
from contextlib import contextmanager, suppress

from pidfdpool.pidfd import Pidfd, prctl
from pidfdpool.process import hygiene, native
from pidfdpool.process.native import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pidfdpool.worker.boot import Boot


def preload(boot: Boot, host_fd: int | None) -> None:
    """Run the preload; host_fd: the host's pidfd, if there are pidfds. Raises what the preload raises."""
    if host_fd is None:
        boot.run_preload()
        return
    with guarded(host_fd):
        boot.run_preload()


@contextmanager
def guarded(host_fd: int) -> Iterator[None]:
    """Have this process killed if the host goes away within the block."""
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
        # The template may have died before this took effect; then its pidfd says so.
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
