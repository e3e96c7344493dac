#!/usr/bin/env bash
# The hard mask of a numpy masked array is soft behind a pickle, and what it hid can be overwritten.
#
# numpy 2.5.5, CPython 3.13.0. With hard_mask=True an assignment leaves masked items as they are. The mask, the data
# and the fill value are pickled, the hardness is not: the array that arrives in another process has a soft mask, and
# the same assignment there unmasks the item and gives it a value. copy.copy and copy.deepcopy keep the hardness. Seen,
# for [1, --, 3] with a hard mask, after item 1 was set to 9:
#     here: [1 -- 3]
#     copy.deepcopy: [1 -- 3]
#     pickle: [1 9 3]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/masks.py" <<'PROGRAM'
import copy
import pickle
import sys

import numpy

made = numpy.ma.array([1, 2, 3], mask=[0, 1, 0], hard_mask=True)
arrays = {"here": made, "copy.deepcopy": copy.deepcopy(made), "pickle": pickle.loads(pickle.dumps(made))}
for name, array in arrays.items():
    array[1] = 9
    print(f"{name}: {array}")
sys.exit([str(array) for array in arrays.values()] != ["[1 -- 3]", "[1 -- 3]", "[1 9 3]"])
PROGRAM
python3.13 -c '' 2>/dev/null || exit 77
python3.13 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.5.5 2>/dev/null || exit 77
"$folder/venv/bin/python" "$folder/masks.py"
