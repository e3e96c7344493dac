#!/usr/bin/env bash
# In a process that multiprocessing spawns, the globals of a script's functions are not those of its main module.
#
# CPython 3.11.7, 3.13.0, 3.14.10, 3.15.2, spawn and forkserver. The script is run by runpy, and what comes of it is
# copied into a new module, which becomes sys.modules["__main__"]. So what anybody sets there (a setting, a
# unittest.mock.patch of a name of __main__, a library that configures "the script") is not what the script's functions
# see, and the other way round. With fork it is the same dictionary. Seen, for a global that is 1 and set to 2 through
# the module: what the function sees, what the module says, and whether their dictionaries are the same:
#     fork (2, 2, True)
#     spawn (1, 2, False)
#     forkserver (1, 2, False)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/script.py" <<'PROGRAM'
import concurrent.futures, multiprocessing, sys

LEVEL = 1

def look():
    main = sys.modules["__main__"]
    main.LEVEL = 2
    return LEVEL, main.LEVEL, look.__globals__ is vars(main)

if __name__ == "__main__":
    seen = {}
    for method in ("fork", "spawn", "forkserver"):
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
            seen[method] = pool.submit(look).result()
            print(method, seen[method])
    copied = 1, 2, False
    sys.exit(seen != {"fork": (2, 2, True), "spawn": copied, "forkserver": copied})
PROGRAM
tried=77
for python in python3.11 python3.13 python3.14 python3.15; do
    "$python" -c '' 2>/dev/null || continue
    tried=0
    "$python" --version
    "$python" "$folder/script.py"
done
exit "$tried"
