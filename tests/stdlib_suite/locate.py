"""Where CPython's `test.test_concurrent_futures` is installed on this machine.

The running interpreter's own comes first. Many installations leave it out (it is not needed to run Python), so others
are asked, nearest version first: interpreters on PATH and those installed beside this one. The newer suite runs on
older interpreters; only the package itself is borrowed, `test.support` stays the running interpreter's own.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import sys
import sysconfig
from pathlib import Path

VARIABLE = "PIDFDPOOL_STDLIB_SUITE"
_PACKAGE = "test_concurrent_futures"


def find_suite() -> Path | None:
    """Return a directory that holds the package `test_concurrent_futures`, or None."""
    for candidate in _candidates():
        if (candidate / _PACKAGE / "test_process_pool.py").is_file():
            return candidate
    return None


def _candidates() -> list[Path]:
    given = os.environ.get(VARIABLE)
    own = Path(sysconfig.get_path("stdlib")) / "test"
    others = set()
    for version in range(12, 20):
        program = shutil.which(f"python3.{version}")
        if program:
            prefix = Path(os.path.realpath(program)).parents[1]
            others.add(prefix / "lib" / f"python3.{version}" / "test")
    # Version managers keep installations side by side: PREFIX/../3.13.0/lib/python3.13.
    for found in glob.glob(str(Path(sys.base_prefix).parent / "*" / "lib" / "python3.*" / "test")):
        others.add(Path(found))
    nearest = sorted(others, key=lambda path: (abs(minor_version(path) - sys.version_info.minor), str(path)))
    return [*([Path(given)] if given else []), own, *nearest]


def minor_version(path: Path) -> int:
    """Return the N of the Python 3.N whose suite is in this directory, or 0 if its name does not tell."""
    found = re.findall(r"python3\.(\d+)", str(path))
    return int(found[-1]) if found else 0
