#!/usr/bin/env bash
# The file that `-X perf_jit` writes is open in every program that such a process starts without closing descriptors.
#
# Since Python 3.4 (PEP 446) the descriptors that CPython opens are not inherited. The one of /tmp/jit-PID.dump is:
# CPython 3.13.0, 3.14.10 and 3.15.2 open it without O_CLOEXEC, for reading and writing. subprocess closes it, as it
# closes all others by default; os.exec*, os.posix_spawn and subprocess with close_fds=False hand it on. The file of
# `-X perf` (/tmp/perf-PID.map) is not inherited. Whoever closes unknown descriptors at the start of a program that
# runs under `-X perf_jit` closes the dump, and CPython later writes to whatever file has got its number.
# Seen, for each version: the option, whether the process itself has such a file, whether a program that it execs has:
#     perf True False
#     perf_jit True True
set -euo pipefail
tried=77
for python in python3.13 python3.14 python3.15; do
    "$python" -c '' 2>/dev/null || continue
    for option in perf perf_jit; do
        seen=$("$python" -X "$option" - <<'PROGRAM'
import os, sys

if not sys.is_stack_trampoline_active():
    sys.exit(77)
LOOK = """
import os
def has_file(beginning):
    for number in os.listdir("/proc/self/fd"):
        try:
            if os.readlink("/proc/self/fd/" + number).startswith(beginning):
                return True
        except OSError:
            pass
    return False
"""
exec(LOOK)
beginning = f"/tmp/{'jit' if sys._xoptions.get('perf_jit') else 'perf'}-{os.getpid()}."
mine = has_file(beginning)
sys.stdout.write(f"{mine} ")
sys.stdout.flush()
files = [f"/tmp/{name}-{os.getpid()}.{suffix}" for name, suffix in (("jit", "dump"), ("perf", "map"))]
remove = f"for file in {files}:\n    if os.path.exists(file):\n        os.remove(file)"
os.execv(sys.executable, [sys.executable, "-c", f"{LOOK}\nprint(has_file({beginning!r}))\n{remove}"])
PROGRAM
        ) || { status=$?; [ "$status" = 77 ] && continue 2; exit "$status"; }
        tried=0
        echo "$("$python" -V) $option $seen"
        [ "$seen" = "True $([ "$option" = perf_jit ] && echo True || echo False)" ]
    done
done
exit "$tried"
