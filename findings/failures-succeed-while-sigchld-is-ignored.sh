#!/usr/bin/env bash
# Where SIGCHLD is ignored, subprocess.run(check=True) takes a program that has failed for one that has succeeded.
#
# CPython 3.11.7, 3.13.0, 3.14.10, 3.15.2. If SIGCHLD is ignored the kernel throws exit statuses away, and waitpid says
# that there is no such child. What the standard library makes of that differs by the door: subprocess says 0, which is
# success; asyncio says 255; a forked multiprocessing.Process has no exit code and is alive for ever, though join()
# has returned. That SIGCHLD is ignored lasts across exec, so a program may have it from whoever has started it, and has
# then not done anything itself. Seen, for programs that exit with 1, and a process that exits with 3:
#     subprocess 0
#     asyncio 255
#     multiprocessing (None, True)
set -euo pipefail
tried=77
for python in python3.11 python3.13 python3.14 python3.15; do
    "$python" -c '' 2>/dev/null || continue
    tried=0
    "$python" --version
    "$python" - 2>/dev/null <<'PROGRAM'
import asyncio, multiprocessing, signal, subprocess, sys

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
by_subprocess = subprocess.run(["false"], check=True).returncode
print("subprocess", by_subprocess)

async def run():
    process = await asyncio.create_subprocess_exec("false")
    return await process.wait()

by_asyncio = asyncio.run(run())
print("asyncio", by_asyncio)
process = multiprocessing.get_context("fork").Process(target=sys.exit, args=(3,))
process.start()
process.join()
by_multiprocessing = process.exitcode, process.is_alive()
print("multiprocessing", by_multiprocessing)
sys.exit((by_subprocess, by_asyncio, by_multiprocessing) != (0, 255, (None, True)))
PROGRAM
done
exit "$tried"
