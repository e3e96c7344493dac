"""What a worker is to `multiprocessing`: a process that is not daemonic and whose parent is the host.

A task may ask `current_process()` and `parent_process()`, start processes of its own (even where the host is
daemonic and could not), and talk to managers with the host's authkey. `multiprocessing` has no call for becoming one
of its processes, so this sets what its own bootstrap sets (multiprocessing/process.py, BaseProcess._bootstrap).
"""

from __future__ import annotations

import itertools
from multiprocessing import process
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pidfdpool.template.boot import Boot


def assume(slot: int, boot: Boot, host_fd: int) -> None:
    """Make this process known to its own multiprocessing. host_fd is readable once the host is gone."""
    module: Any = process
    module._process_counter = itertools.count(1)
    module._children = set()
    me = module.BaseProcess(name=f"PidfdPoolWorker-{slot}")
    me._identity = (slot + 1,)
    me._parent_pid = boot.host_pid
    me._config = {"semprefix": "/mp", "authkey": module.AuthenticationString(boot.authkey)}
    module._current_process = me
    module._parent_process = module._ParentProcess(boot.host_name, boot.host_pid, host_fd)
