"""Makes `multiprocessing` in template and workers use the host's resource tracker, as it does in its own processes.

A resource tracker is a process that removes shared memory and semaphores which nobody has removed when the last
process that uses the tracker has ended. So all processes of a program have to use the same one. A worker with one of
its own would remove the host's memory when the worker ends, because attaching to memory registers it, too.

`multiprocessing` hands the tracker to each process that it starts, and starts it for that. Here a worker asks the
host for it (`transport.descriptor_requests`) in the moment in which it would otherwise start its own. So what needs
no tracker costs nothing, and the host may start its own at any time before. `loop.tracker_requests` answers.

`install` is called by the template on its only thread, before it runs any code of the user's. Workers inherit the
rest, which runs on any of their threads, and in processes that tasks fork.
"""

from __future__ import annotations

import sys

from pidfdpool.process import native
from pidfdpool.transport.descriptor_requests import Requester
from pidfdpool.worker import import_hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MODULE = "multiprocessing.resource_tracker"


class Asking:
    """How this process asks. Attribute `requester`: None: it is no template and no worker, nor forked from one."""

    requester: Requester | None = None


asking = Asking()


def install(fd: int) -> None:
    """Have trackers asked for with this descriptor, which stays open for good."""
    is_changed = asking.requester is not None  # in a template that a worker has forked, as the host of its own pool
    asking.requester = Requester(fd)
    loaded = sys.modules.get(_MODULE)
    if loaded is not None:
        import threading

        # The copy of a lock that another thread of the host's held at the fork would never be released.
        loaded._resource_tracker._lock = threading.RLock()
    if is_changed:
        return
    if loaded is None:
        import_hook.when_loaded(_MODULE, _ask_before_a_start)
    else:
        _ask_before_a_start(loaded)


def _ask_before_a_start(module: Any) -> None:
    """Have the module's tracker object look for the host's tracker before it starts one.

    Every way to use a tracker goes through one method, which starts it if there is no descriptor of one: since 3.14
    through the second of these.
    """
    tracker = module._resource_tracker
    name = "ensure_running" if not hasattr(tracker, "_ensure_running_and_write") else "_ensure_running_and_write"
    original = getattr(tracker, name)

    def ensure(*arguments: Any) -> Any:
        fetch(tracker)
        return original(*arguments)

    setattr(tracker, name, ensure)
    if hasattr(module, name):
        setattr(module, name, ensure)


def fetch(tracker: Any) -> None:
    """Give multiprocessing's tracker object the host's tracker, if it has none. Waits for the host.

    If nobody answers, it stays without one. In the host, which has nobody to ask, this does nothing.
    """
    requester = asking.requester
    if tracker._fd is not None or requester is None:
        return
    with tracker._lock:
        if tracker._fd is not None:
            return
        fd = requester.request()
        if tracker._fd is None:
            tracker._fd = fd
        elif fd is not None:
            native.close(fd)  # a finalizer, which has run meanwhile on this thread, has asked as well
