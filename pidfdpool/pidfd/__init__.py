"""pidfds: stable, pollable names for processes, and the nearest thing to them where the kernel has none.

Usable without any pool, and ignorant of pools. `Pidfd` is the handle; `SentinelHandle` and `ChildHandle` are the
fallback behind the same interface; `capabilities()` tells what this kernel grants; `prctl` holds three calls that
processes need around handles.
"""

from pidfdpool.pidfd.capability import Capabilities, capabilities
from pidfdpool.pidfd.errors import PidfdDenied, PidfdError, PidfdMisused, ProcessGone
from pidfdpool.pidfd.handle import Pidfd, ProcessHandle
from pidfdpool.pidfd.sentinel import ChildHandle, SentinelHandle, sentinel_pipe
from pidfdpool.pidfd.status import ExitStatus

__all__ = [
    "Capabilities",
    "ChildHandle",
    "ExitStatus",
    "Pidfd",
    "PidfdDenied",
    "PidfdError",
    "PidfdMisused",
    "ProcessGone",
    "ProcessHandle",
    "SentinelHandle",
    "capabilities",
    "sentinel_pipe",
]
