#!/usr/bin/env bash
# loky takes the buffersize of a map without complaint, and reads all inputs nevertheless.
#
# loky 3.7.0, CPython 3.15.2. Executor.map has `buffersize` since 3.14: no more than so many inputs are read ahead of
# the results. loky's executor is an Executor, and its map takes any keyword, but uses only timeout and chunksize. So a
# program that bounds its memory in this way and changes its import runs on, unbounded. Executors of the standard
# library raise TypeError for a keyword that they do not know. Seen, inputs that were read of 50 before the first result:
#     standard pool: 2
#     loky: 50
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/maps.py" <<'PROGRAM'
import concurrent.futures
import sys

import loky


def read_ahead(pool):
    read = []

    def inputs():
        for number in range(50):
            read.append(number)
            yield number

    pool.map(abs, inputs(), buffersize=2)
    return len(read)


if __name__ == "__main__":
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        standard = read_ahead(pool)
    print("standard pool:", standard)
    pool = loky.get_reusable_executor(2)
    other = read_ahead(pool)
    print("loky:", other)
    pool.shutdown()
    sys.exit((standard, other) != (2, 50))
PROGRAM
python3.15 -c '' 2>/dev/null || exit 77
python3.15 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check loky==3.7.0 2>/dev/null || exit 77
"$folder/venv/bin/python" "$folder/maps.py"
