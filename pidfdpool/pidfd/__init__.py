"""pidfds: stable, pollable names for processes, and a fallback for kernels that have none.

It can be used alone, in any process and on any thread, and knows nothing of pools. `Pidfd` is the handle.
`SentinelHandle` and `ChildHandle` are the fallback, with the same interface. `capabilities()` tells what this kernel
grants. `prctl` has the calls of prctl(2) that processes with handles need. The names are loaded at their first use
(PEP 562), as those of `pidfdpool` are. On other systems than Linux there is `ExitStatus` only, for deaths.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = bool()  # noqa: UP018  see the package itself
if TYPE_CHECKING:
    from pidfdpool.pidfd.capability import Capabilities, capabilities
    from pidfdpool.pidfd.errors import PidfdDenied, PidfdError, PidfdMisused, ProcessGone
    from pidfdpool.pidfd.handle import Pidfd
    from pidfdpool.pidfd.interface import ProcessHandle
    from pidfdpool.pidfd.sentinel import ChildHandle, SentinelHandle, sentinel_pipe
    from pidfdpool.pidfd.status import ExitStatus

_HOME = {
    "Capabilities": "capability",
    "ChildHandle": "sentinel",
    "ExitStatus": "status",
    "Pidfd": "handle",
    "PidfdDenied": "errors",
    "PidfdError": "errors",
    "PidfdMisused": "errors",
    "ProcessGone": "errors",
    "ProcessHandle": "interface",
    "SentinelHandle": "sentinel",
    "capabilities": "capability",
    "sentinel_pipe": "sentinel",
}

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


def __getattr__(name: str) -> object:
    """Load a public name from the module that defines it."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if sys.platform != "linux" and name != "ExitStatus":
        from pidfdpool import PidfdPoolExecutor  # noqa: F401  it raises ImportError, and says what there is instead
    value = getattr(__import__(f"{__name__}.{home}", fromlist=(name,)), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Name what can be imported, loaded or not."""
    return sorted({*globals(), *__all__})
