#!/usr/bin/env bash
# faulthandler no longer says that it has left frames out.
#
# CPython 3.11.7 and 3.12.1 write the 100 innermost frames of a deeper stack and then a line "  ...". CPython 3.13.0,
# 3.14.10 and 3.15.2 write the same 100 frames and nothing after them, so that what is shown looks like a whole stack
# whose outermost caller is missing. Seen, lines for a stack of 121 calls and the beginning of the last one:
#     3.11, 3.12: 102 '  ...'
#     3.13 to 3.15: 101 '  File'
set -euo pipefail
tried=77
for python in python3.11 python3.12 python3.13 python3.14 python3.15; do
    "$python" -c '' 2>/dev/null || continue
    tried=0
    "$python" - <<'PROGRAM'
import faulthandler, sys, tempfile

def call(depth):
    if depth:
        call(depth - 1)
    else:
        faulthandler.dump_traceback(file)

with tempfile.TemporaryFile("w+") as file:
    call(120)
    file.seek(0)
    lines = file.read().splitlines()
seen = len(lines), lines[-1][:6].rstrip()
print(sys.version.split()[0], *seen)
sys.exit(seen != ((102, "  ...") if sys.version_info < (3, 13) else (101, "  File")))
PROGRAM
done
exit "$tried"
