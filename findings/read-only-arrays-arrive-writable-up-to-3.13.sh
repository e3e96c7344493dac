#!/usr/bin/env bash
# A read-only numpy array arrives in a worker as a writable one up to Python 3.13, and as a read-only one since 3.14.
#
# numpy 2.5.5, CPython 3.13.0, 3.14.10, 3.15.2. numpy pickles an array in two ways: with protocol 5 the flag comes
# along, below that it is lost. Python 3.14 made 5 the default protocol, which is what multiprocessing and the pools of
# concurrent.futures use. So a task that works on its argument in place fails on 3.14 where it ran before, with the
# same numpy, if the caller's array was read-only: what broadcast_to, frombuffer and a pandas DataFrame under copy on
# write give. Seen, for a task that sets the first item of [0, 1, 2] to 9:
#     3.13.0: [9, 1, 2]
#     3.14.10 and 3.15.2: assignment destination is read-only
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/arrays.py" <<'PROGRAM'
import concurrent.futures
import multiprocessing
import platform
import sys

import numpy


def change(array):
    try:
        array[0] = 9
    except ValueError as error:
        return str(error)
    return str(array.tolist())


if __name__ == "__main__":
    array = numpy.arange(3)
    array.flags.writeable = False
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        seen = pool.submit(change, array).result()
    print(f"{platform.python_version()}: {seen}")
    sys.exit(seen != ("[9, 1, 2]" if sys.version_info < (3, 14) else "assignment destination is read-only"))
PROGRAM
tried=77
for python in python3.13 python3.14 python3.15; do
    "$python" -c '' 2>/dev/null || continue
    "$python" -m venv "$folder/$python"
    "$folder/$python/bin/pip" install --quiet --disable-pip-version-check numpy==2.5.5 2>/dev/null || continue
    tried=0
    "$folder/$python/bin/python" "$folder/arrays.py"
done
exit "$tried"
