"""Carries other tools' additions to multiprocessing's preparation data from the host to the template.

A coverage tool or a tracer that wants to run in every process replaces `multiprocessing.spawn.get_preparation_data`,
and puts an object of its own into what that returns. When the new process unpickles that object, the tool is set up
there. Here the template unpickles it, and its workers inherit the result.

`capture` runs in the host on the thread that submits, and takes time only if there is such a tool. `restore` runs in
a template that is a fresh interpreter.
"""

from __future__ import annotations

import _pickle
import sys
from types import FunctionType

from pidfdpool.serialization import picklers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# multiprocessing's own data, which reaches a template in another way (multiprocessing/spawn.py).
_KNOWN = frozenset(
    {
        "authkey", "dir", "init_main_from_name", "init_main_from_path", "log_level", "log_to_stderr", "name",
        "orig_dir", "start_method", "sys_argv", "sys_path",
    }
)  # fmt: skip


def is_replaced(function: object, module: object) -> bool:
    """Return whether somebody has put something else in the place of a module's own function."""
    return type(function) is not FunctionType or function.__globals__ is not vars(module)


def capture() -> bytes | None:
    """Return the pickle of what tools have added; None: they have added nothing.

    Raises:
        Exception: the addition cannot be made or pickled.
    """
    spawn: Any = sys.modules.get("multiprocessing.spawn")
    if spawn is None or not is_replaced(spawn.get_preparation_data, spawn):
        return None
    data: dict[str, Any] = spawn.get_preparation_data("PidfdPoolWorker")
    added = {name: value for name, value in data.items() if name not in _KNOWN}
    return _pickle.dumps(added, picklers.PROTOCOL) if added else None


def restore(pickled: bytes) -> None:
    """Unpickle the additions, which sets up their tools in this process."""
    _pickle.loads(pickled)
