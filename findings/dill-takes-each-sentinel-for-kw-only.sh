#!/usr/bin/env bash
# dill makes dataclasses.KW_ONLY of each sentinel.
#
# dill 0.4.1, CPython 3.15.2. dill has a rule of its own for the type of dataclasses.KW_ONLY, and the rule writes that
# name without a look at the object. In 3.15 KW_ONLY is an object of the new built-in type `sentinel`, and so the rule
# holds for all of these, whoever has made them. No error is raised; what comes back is another object, and a default
# that is compared by `is` is never recognized. pickle gives the same object back. Seen:
#     pickle: MISSING, the same object: True
#     dill: KW_ONLY, the same object: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/sentinels.py" <<'PROGRAM'
import dataclasses
import pickle
import sys

import dill

MISSING = sentinel("MISSING")
back = {module.__name__: module.loads(module.dumps(MISSING)) for module in (pickle, dill)}
for name, value in back.items():
    print(f"{name}: {value!r}, the same object: {value is MISSING}")
sys.exit(back["pickle"] is not MISSING or back["dill"] is not dataclasses.KW_ONLY)
PROGRAM
python3.15 -c '' 2>/dev/null || exit 77
python3.15 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dill==0.4.1 2>/dev/null || exit 77
"$folder/venv/bin/python" "$folder/sentinels.py"
