"""Runs tests of one class of the suite in a process of its own.

Usage: `python -m tests.stdlib_suite.child MODULE CLASS AGAINST REPORT TEST...`, with `environment()`.

Writes into the file REPORT one JSON line when a test begins, one for its outcome and one when it has ended, so that a
test that hangs can be named; standard output belongs to the tests. With `*` for the class, only lists what there is.
SIGUSR1 has it write the stacks of its threads to standard error.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import signal
import sys
import traceback
import unittest
from typing import Any, TextIO

from tests.stdlib_suite import pools
from tests.stdlib_suite.scripts import begin_scripts_with

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

OVERLAY = os.path.join(ROOT, "tests", "stdlib_suite", "overlay")

_PRELUDE = f"""
import sys
sys.path[:0] = [{OVERLAY!r}, {ROOT!r}]
import concurrent.futures, concurrent.futures.process, pidfdpool
concurrent.futures.ProcessPoolExecutor = concurrent.futures.process.ProcessPoolExecutor = pidfdpool.PidfdPoolExecutor
"""


def environment(suite: str) -> dict[str, str]:
    """Return the environment in which `suite` is a part of the package `test`."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([OVERLAY, ROOT]), "PIDFDPOOL_STDLIB_SUITE_IN_USE": suite}


def put_ours_in_place() -> None:
    """Rebind the standard's name to our executor, here and in the scripts that tests start."""
    import concurrent.futures.process

    import pidfdpool

    class ProcessPoolExecutor(pidfdpool.PidfdPoolExecutor):
        """Ours under the name that the tests' helpers look for."""

        def __getattr__(self, name: str) -> Any:
            # The test fails right here. It may have meant to end by this attribute what its executor runs, and waits
            # for that next, when it shuts the executor down.
            if not name.startswith("__"):
                self.kill_workers()
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    concurrent.futures.ProcessPoolExecutor = ProcessPoolExecutor  # type: ignore[misc]
    concurrent.futures.process.ProcessPoolExecutor = ProcessPoolExecutor  # type: ignore[misc]

    begin_scripts_with(_PRELUDE)


class Reporter(unittest.TestResult):
    """Writes what happens as it happens."""

    def __init__(self, report: TextIO) -> None:
        super().__init__()
        self.report = report

    def tell(self, test: unittest.TestCase, outcome: str, detail: str = "") -> None:
        test = getattr(test, "test_case", test)  # of a part of it
        name = test.id().split(".")[-1] if isinstance(test, unittest.TestCase) else str(test)
        print(json.dumps({"test": name, "outcome": outcome, "detail": detail}), file=self.report, flush=True)

    def startTest(self, test):  # noqa: N802
        super().startTest(test)
        self.tell(test, "begun")

    def stopTest(self, test):  # noqa: N802
        super().stopTest(test)
        self.tell(test, "ended")

    def addSuccess(self, test):  # noqa: N802
        self.tell(test, "passed")

    def addSkip(self, test, reason):  # noqa: N802
        self.tell(test, "skipped", reason)

    def addFailure(self, test, error):  # noqa: N802
        self.tell(test, "failed", "".join(traceback.format_exception(*error)))

    addError = addFailure  # noqa: N815

    def addSubTest(self, test, subtest, error):  # noqa: N802
        if error is not None:
            self.addFailure(test, error)


def main(module: str, wanted: str, against: str, report: str, *tests: str) -> None:
    """Run tests of one class, in their order, or list all classes."""
    faulthandler.register(signal.SIGUSR1)
    of_pool = module.startswith(pools.PREFIX)
    if against == "ours":
        pools.put_ours_in_place() if of_pool else put_ours_in_place()
    if of_pool:
        loaded = pools.load(module.removeprefix(pools.PREFIX))
    else:
        loaded = importlib.import_module(f"test.test_concurrent_futures.{module}")
    loader = unittest.TestLoader()
    with open(report, "w", encoding="utf-8") as file:
        if wanted == "*":
            for name, value in sorted(vars(loaded).items()):
                is_test = isinstance(value, type) and issubclass(value, unittest.TestCase)
                if is_test and name.startswith(pools.CLASSES if of_pool else "ProcessPool"):
                    print(json.dumps({"class": name, "tests": loader.getTestCaseNames(value)}), file=file)
            return
        loaded.setUpModule()
        unittest.TestSuite(map(getattr(loaded, wanted), tests)).run(Reporter(file))
        unittest.case.doModuleCleanups()


if __name__ == "__main__":
    main(*sys.argv[1:])
