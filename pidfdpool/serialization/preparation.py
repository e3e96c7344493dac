"""What other people's tools add to the data by which multiprocessing prepares a spawned process.

A tool that is to be in each process (a coverage tool, a tracer) puts an object of its own among the data that
`multiprocessing.spawn.get_preparation_data` returns: when the new process unpickles that, the object sets up the tool
there. Here the template unpickles it, and its workers inherit what was set up.

`captured` runs in the host, and only takes time if there is such a tool; `release` in a template of the exec way.
"""

from __future__ import annotations

import _pickle
import sys
from types import FunctionType

from pidfdpool.serialization import picklers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# multiprocessing's own, which a template is told in its own way (multiprocessing/spawn.py).
_KNOWN = frozenset(
    {
        "authkey", "dir", "init_main_from_name", "init_main_from_path", "log_level", "log_to_stderr", "name",
        "orig_dir", "start_method", "sys_argv", "sys_path",
    }
)  # fmt: skip


def is_replaced(function: object, module: object) -> bool:
    """Return whether something else has been put in the place of a module's own function."""
    return type(function) is not FunctionType or function.__globals__ is not vars(module)


def capture() -> bytes | None:
    """Return what somebody has added, pickled; None: nobody has added anything.

    Raises:
        Exception: what is added cannot be made or pickled.
    """
    spawn: Any = sys.modules.get("multiprocessing.spawn")
    if spawn is None or not is_replaced(spawn.get_preparation_data, spawn):
        return None
    data: dict[str, Any] = spawn.get_preparation_data("PidfdPoolWorker")
    added = {name: value for name, value in data.items() if name not in _KNOWN}
    return _pickle.dumps(added, picklers.PROTOCOL) if added else None


def restore(pickled: bytes) -> None:
    """Have what was added set itself up."""
    _pickle.loads(pickled)
