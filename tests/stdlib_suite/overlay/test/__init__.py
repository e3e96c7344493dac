"""Stands in the place of the standard package `test`, to add a suite that another interpreter brought along.

A package, found by sys.path, rather than a change to a loaded module: fresh processes that a pool or a test starts
see it as well. PIDFDPOOL_STDLIB_SUITE_IN_USE holds the directory of the suite.
"""

import os
import sys
import sysconfig

__path__ = [os.path.join(sysconfig.get_path("stdlib"), "test"), os.environ["PIDFDPOOL_STDLIB_SUITE_IN_USE"]]


def _adapt_support():
    """Give an older interpreter's test.support what a newer suite takes for granted."""
    from test import support

    if sys.version_info < (3, 13):
        support.Py_GIL_DISABLED = False
        support.requires_gil_enabled = lambda *_: lambda test: test
        # They have learned to ask about one more sanitizer; none is in use here.
        support.check_sanitizer = lambda **_: False
        support.skip_if_sanitizer = lambda *_, **__: lambda test: test


_adapt_support()
