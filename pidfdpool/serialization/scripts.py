"""Describes the script that is this process's `__main__`, and tells whether it may be run again for workers.

`multiprocessing` runs the script again in each process that it spawns, as a module that is not called `__main__`. So
a script that is meant to be used with processes has its work behind `if __name__ == "__main__":`. If a script has
such a guard, a pool's template can run it to get what does not travel by value; see `worker.script_module`.

Called in the host on the thread that submits. In the template and its workers the host's description is used. The
only side effect is that the script's file is read.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from pidfdpool.serialization.script_text import Analysis

STAND_IN = "__pidfdpool_stand_in__"  # in the globals of the module that stands for the script in a worker
FAILURE = "__pidfdpool_failure__"  # there, too: how running the script again ended, if it failed


class Script:
    """A description of one script. Its file is read once, when something is asked that only the file can tell.

    path: its file, or None. module: the name under which `python -m` has run it, or None.
    """

    __slots__ = ("_analysis", "_obstacle", "module", "path")

    def __init__(self, path: str | None, module: str | None, obstacle: str = "") -> None:
        """obstacle: why it cannot be run again, if that is known already."""
        self.path: str | None = path
        self.module: str | None = module
        self._obstacle = obstacle
        self._analysis: Analysis | None = None

    def as_fields(self) -> tuple[str | None, str | None, str]:
        """Return plain data from which `Script(*fields)` makes it again."""
        return self.path, self.module, self._obstacle

    @property
    def obstacle(self) -> str:
        """Why it cannot be run again; empty: it can."""
        return self._obstacle or (self._analysis or self._read()).obstacle

    @property
    def can_run_again(self) -> bool:
        """Whether a template may run it."""
        return not self.obstacle

    @property
    def changes_process(self) -> bool:
        """Whether it changes, outside of its guard, the state of the process: logging, a random generator."""
        return self._read().changes_process

    @property
    def process_local(self) -> frozenset[str]:
        """Those of its names whose numbers are valid only in the host's process: descriptors, ids."""
        return self._read().process_local

    @property
    def names(self) -> frozenset[str]:
        """The names that it defines or assigns outside of its guard."""
        return self._read().names

    def _read(self) -> Analysis:
        if self._analysis is None:
            from pidfdpool.serialization import script_text  # seldom needed, and as large as all else here

            self._analysis = script_text.analysed(self.path)
        return self._analysis


class NeedsScript(BaseException):
    """Ends the rebuilding of a call in a worker: it needs a value that only running the script again can make.

    It is not an Exception, so that nobody mistakes it for a failure of the call.
    """


ran_again = False  # the script was run again in this process, or in the one from which it was forked
_known: tuple[object, object, Script] | None = None  # the last result, for which `__main__` and which file
received: Script | None = None  # in a template and its workers: the host's description


def current() -> Script:
    """Return what is known of this process's script. Reads the script's file once."""
    global _known  # noqa: PLW0603  per process; to look twice does no harm
    if received is not None:
        return received
    main: Any = sys.modules.get("__main__")
    known = _known
    if known is not None and known[0] is main and known[1] is getattr(main, "__file__", None):
        return known[2]
    script = _described(main)
    _known = main, getattr(main, "__file__", None), script
    return script


def _described(main: ModuleType | None) -> Script:
    names = getattr(main, "__dict__", {})
    spec, path = names.get("__spec__"), names.get("__file__")
    module: str | None = getattr(spec, "name", None)
    if module is not None and (module == "__main__" or module.endswith(".__main__")):
        # multiprocessing does not run a package's __main__ again either (multiprocessing/spawn.py).
        return Script(None, None, "it is the __main__ of a package, a folder or an archive")
    if getattr(spec, "origin", None) is not None:
        path = spec.origin  # type: ignore[union-attr]
    if not isinstance(path, str) or path[:1] + path[-1:] == "<>":  # "<stdin>"
        return Script(None, None, "there is no script: the code was typed in, or did not come from a file")
    return Script(os.path.abspath(os.path.join(_initial_directory(), path)), module)


def _initial_directory() -> str:
    """Return the directory in which the process started, if known: a script's path may be relative to it."""
    began: str | None = getattr(sys.modules.get("multiprocessing.process"), "ORIGINAL_DIR", None)
    if began is not None:
        return began
    try:
        return os.getcwd()
    except OSError:
        return "/"
