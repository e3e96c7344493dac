#!/usr/bin/env bash
# Once uvloop has started a program, the SIGCHLD handler of Python is never called again, though getsignal shows it.
#
# uvloop 0.23.0, CPython 3.13.0. To start a program uvloop catches SIGCHLD in C, behind the back of the signal module,
# and when its loop is closed the signal has the default disposition. So a handler that was set by signal.signal hears
# of no child from then on, also of none that the loop knows nothing of, and also after the loop has ended.
# signal.getsignal returns it all the same. To set it once more helps. With asyncio's own loop it is called each time.
# Seen, calls of the handler for one program that subprocess runs:
#     asyncio: before 1, after the loop's program 1, after the loop 1, set again 1
#     uvloop: before 1, after the loop's program 0, after the loop 0, set again 1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/children.py" <<'PROGRAM'
import asyncio
import signal
import subprocess
import sys

import uvloop

calls = []


def handler(*_):
    calls.append(1)


def heard():
    """Return how often the handler is called for a program that subprocess runs."""
    calls.clear()
    subprocess.run(["true"], check=True)
    return len(calls)


async def start_a_program(seen):
    seen["before"] = heard()
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
    await asyncio.sleep(0.2)  # until the handler was called for it, if it is
    seen["after the loop's program"] = heard()


def look(run):
    seen = {}
    signal.signal(signal.SIGCHLD, handler)
    run(start_a_program(seen))
    seen["after the loop"] = heard()
    assert signal.getsignal(signal.SIGCHLD) is handler
    signal.signal(signal.SIGCHLD, handler)
    seen["set again"] = heard()
    return seen


loops = {module.__name__: look(module.run) for module in (asyncio, uvloop)}
for name, seen in loops.items():
    print(f"{name}:", ", ".join(f"{when} {times}" for when, times in seen.items()))
sys.exit([[*seen.values()] for seen in loops.values()] != [[1, 1, 1, 1], [1, 0, 0, 1]])
PROGRAM
python3.13 -c '' 2>/dev/null || exit 77
python3.13 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check uvloop==0.23.0 2>/dev/null || exit 77
"$folder/venv/bin/python" "$folder/children.py"
