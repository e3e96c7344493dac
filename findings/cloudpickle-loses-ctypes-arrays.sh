#!/usr/bin/env bash
# cloudpickle pickles a ctypes array without complaint, and no other process can load it.
#
# cloudpickle 3.1.3, CPython 3.11.7 and 3.15.2. The type of `(ctypes.c_int * 3)(...)` is made where it is first asked
# for, and says that it belongs to that module. In a script that is __main__, so cloudpickle takes it for a class of
# the user's and sends it by value, with the methods that ctypes' metaclass has given it. pickle itself refuses. Seen,
# when it is loaded:
#     3.11: AttributeError: type object 'PyCArrayType' has no attribute '__mul__'
#     3.15: AttributeError: type object 'CType_Type' has no attribute '__mul__'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/save.py" <<'PROGRAM'
import ctypes, sys
import cloudpickle

sys.stdout.buffer.write(cloudpickle.dumps((ctypes.c_int * 3)(1, 2, 3)))
PROGRAM
cat >"$folder/load.py" <<'PROGRAM'
import pickle, sys

try:
    print("loaded:", list(pickle.load(sys.stdin.buffer)))
except AttributeError as error:
    print(f"AttributeError: {error}")
    sys.exit("has no attribute '__mul__'" not in str(error))
sys.exit(1)
PROGRAM
tried=77
for python in python3.11 python3.15; do
    "$python" -c '' 2>/dev/null || continue
    "$python" -m venv "$folder/$python"
    "$folder/$python/bin/pip" install --quiet --disable-pip-version-check cloudpickle==3.1.3 2>/dev/null || continue
    tried=0
    "$python" --version
    "$folder/$python/bin/python" "$folder/save.py" | "$folder/$python/bin/python" "$folder/load.py"
done
exit "$tried"
