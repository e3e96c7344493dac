#!/usr/bin/env bash
# A variable that a call in an InterpreterPoolExecutor sets is not in os.environ, and programs get it all the same.
#
# CPython 3.14.10 and 3.15.2. Each interpreter has an os.environ of its own, a copy that is made when it imports os. To
# set a variable there also changes the environment of the process, of which there is one. So what a worker of the pool
# sets is not seen by os.environ of the main interpreter, but a program that the main interpreter starts has it, as
# subprocess hands on the environment of the process if it is given none. With env=os.environ, which reads as if it
# were the same, the program does not have it. os.reload_environ() (3.14) brings the two together. Seen:
#     main interpreter: None
#     its program: 'worker'
#     its program with env=os.environ: None
#     the next pool's interpreter: 'worker'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/script.py" <<'PROGRAM'
import os
import subprocess
import sys
from concurrent.futures import InterpreterPoolExecutor

LOOK = "import os; print(os.environ.get('SET_BY'), end='')"


def program(**options):
    seen = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True, **options).stdout
    return None if seen == "None" else seen


def call(code):
    with InterpreterPoolExecutor(1) as pool:
        return pool.submit(eval, code).result()


if __name__ == "__main__":
    call("__import__('os').environ.update(SET_BY='worker')")
    seen = {
        "main interpreter": os.environ.get("SET_BY"),
        "its program": program(),
        "its program with env=os.environ": program(env=os.environ),
        "the next pool's interpreter": call("__import__('os').environ.get('SET_BY')"),
    }
    for who, value in seen.items():
        print(f"{who}: {value!r}")
    sys.exit([*seen.values()] != [None, "worker", None, "worker"])
PROGRAM
tried=77
for python in python3.14 python3.15; do
    "$python" -c '' 2>/dev/null || continue
    tried=0
    "$python" --version
    env -u SET_BY "$python" "$folder/script.py"
done
exit "$tried"
