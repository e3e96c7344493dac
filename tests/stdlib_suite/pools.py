"""CPython's tests of `multiprocessing.Pool`, for `child`: with our pool in the place of the standard one.

They are classes of `test._test_multiprocessing`, which is installed with most interpreters. `pool_tests` has a module
of them for each start method.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from tests.stdlib_suite.scripts import begin_scripts_with

PREFIX = "pool_"
MODULES = ("pool_fork", "pool_forkserver", "pool_spawn")
CLASSES = "WithProcessesTestPool"

_PRELUDE = "import pidfdpool.multiprocessing\npidfdpool.multiprocessing.install()\n"


def are_installed() -> bool:
    """Return whether this interpreter has the tests."""
    try:
        return importlib.util.find_spec("test._test_multiprocessing") is not None
    except ImportError:
        return False


def put_ours_in_place() -> None:
    """Have every pool that is made from now on be ours, here and in the scripts that tests start."""
    import pidfdpool.multiprocessing

    pidfdpool.multiprocessing.install()
    begin_scripts_with(_PRELUDE)


def load(method: str) -> ModuleType:
    """Return a module with the tests of processes that are started by this method."""
    return importlib.import_module(f"tests.stdlib_suite.pool_tests.{method}")
