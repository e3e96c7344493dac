#!/usr/bin/env bash
# Since Python 3.14 the workers of all pools have the environment and the umask that the program had at its first pool.
#
# CPython 3.14.10 and 3.15.2, where forkserver is the default. One server forks the workers of all pools of a program,
# for as long as that runs. It is started by the first pool, and hands on what it had then: variables of the
# environment, umask, nice value. What the program sets later, such as the number of threads for its next pool, does not
# reach them. The current directory does: it is sent along. With fork, the default up to 3.13, and with spawn
# each pool starts from the program as it is. Seen, for a variable that is 1 and then 2, and a umask that is 22 and then
# 77, in the worker of a second pool:
#     3.13.0: 2 and 77
#     3.14.10 and 3.15.2: 1 and 22
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/script.py" <<'PROGRAM'
import os
import platform
import sys
from concurrent.futures import ProcessPoolExecutor


def look():
    umask = os.umask(0)
    os.umask(umask)
    return os.environ["LEVEL"], f"{umask:o}"


if __name__ == "__main__":
    seen = []
    for level, umask in (("1", 0o22), ("2", 0o77)):
        os.environ["LEVEL"] = level
        os.umask(umask)
        with ProcessPoolExecutor(1) as pool:
            seen.append(pool.submit(look).result())
    print(f"{platform.python_version()}:", *seen[1], sep=" ")
    sys.exit(seen != [("1", "22"), ("2", "77") if sys.version_info < (3, 14) else ("1", "22")])
PROGRAM
tried=77
for python in python3.13 python3.14 python3.15; do
    "$python" -c '' 2>/dev/null || continue
    tried=0
    "$python" "$folder/script.py"
done
exit "$tried"
