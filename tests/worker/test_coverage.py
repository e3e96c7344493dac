"""coverage.py measures what workers run, in the configurations in which it does so with the standard pool."""

from __future__ import annotations

import os
import subprocess
import sys

import coverage
import pytest

from tests.conditions import ROOT

MODULE = """
def in_module(number):
    return number * 3  # in a module

def register():
    import atexit
    atexit.register(at_exit)

def at_exit():
    return 1  # at exit
"""

SCRIPT = """
import os, sys
import measured
from pidfdpool import PidfdPoolExecutor

def in_script(number):
    return number + 1  # in the script

if __name__ == "__main__":
    way, end = sys.argv[1:]
    with PidfdPoolExecutor(1, mp_context=way, preload="measured" if end == "preload" else ()) as pool:
        assert pool.submit(measured.in_module, 2).result() == 6
        assert pool.submit(in_script, 2).result() == 3
        pool.submit(measured.register).result()  # in the host
        if end == "terminate":
            pool.submit(os.getpid).result()
            pool.terminate_workers()
"""

ALL = {"in a module", "in the script", "in the host", "at exit"}


@pytest.mark.costly_table
@pytest.mark.parametrize(
    ("ways", "end", "settings", "expected"),
    [
        (("spawn", "fork"), "leave", ["concurrency = multiprocessing", "parallel = true"], ALL),
        (("spawn", "fork"), "terminate", ["concurrency = multiprocessing", "sigterm = true"], ALL - {"at exit"}),
        (("spawn",), "leave", ["patch = subprocess"], ALL),
        (("spawn",), "terminate", ["patch = subprocess", "sigterm = true"], ALL - {"at exit"}),
        (("spawn",), "preload", ["patch = subprocess", "concurrency = multiprocessing"], ALL),
        (("fork",), "leave", ["patch = fork", "parallel = true"], ALL),
    ],
    ids=["multiprocessing", "multiprocessing, sigterm", "subprocess", "subprocess, sigterm", "both, preload", "fork"],
)
def test_workers_are_measured(ways, end, settings, expected, tmp_path):
    """Guards against workers that leave without what tools have registered, or that pass their hooks by."""
    sources = {"measured.py": MODULE, "script.py": SCRIPT}
    for name, text in sources.items():
        (tmp_path / name).write_text(text)
    (tmp_path / ".coveragerc").write_text("\n".join(["[run]", "source = .", *settings, ""]))
    environment = {**os.environ, "PYTHONPATH": ROOT}
    for way in ways:
        command = [sys.executable, "-m", "coverage", "run", "script.py", way, end]
        host = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert (host.returncode, "Traceback" in host.stderr) == (0, False), host.stderr
        seen = set()
        for path in tmp_path.glob(".coverage.*"):
            data = coverage.CoverageData(str(path))
            data.read()
            for name, text in sources.items():
                lines = data.lines(str(tmp_path / name)) or ()
                seen |= {text.splitlines()[number - 1].rpartition("  # ")[2] for number in lines}
            data.close()
            path.unlink()
        assert seen & ALL >= expected, way
