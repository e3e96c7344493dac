#!/usr/bin/env bash
# anyio.to_process says that a module is missing when a function of a script raises an exception of the script's.
#
# anyio 4.16.0, CPython 3.13.0 and 3.15.2. The worker process imports the script as "__mp_main__", as multiprocessing
# does, and pickles what the function raised under that name. multiprocessing makes the name known in the program as
# well; here nobody does. So the exception cannot be loaded, and the caller gets ModuleNotFoundError in its place, with
# no trace of what went wrong. A result of such a class is lost in the same way. Built-in exceptions arrive. Seen:
#     ValueError: 5
#     instead of OutOfRange: ModuleNotFoundError: No module named '__mp_main__'
#     instead of a Point: ModuleNotFoundError: No module named '__mp_main__'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/script.py" <<'PROGRAM'
import sys

import anyio
import anyio.to_process


class Point:
    pass


class OutOfRange(Exception):
    pass


def fail(kind):
    raise (ValueError if kind == "built-in" else OutOfRange)(5)


async def outcome(function, *args):
    try:
        value = await anyio.to_process.run_sync(function, *args)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return type(value).__name__


async def main():
    seen = [await outcome(fail, "built-in"), await outcome(fail, "own"), await outcome(Point)]
    print(seen[0])
    print("instead of OutOfRange:", seen[1])
    print("instead of a Point:", seen[2])
    missing = "ModuleNotFoundError: No module named '__mp_main__'"
    sys.exit(seen != ["ValueError: 5", missing, missing])


if __name__ == "__main__":
    anyio.run(main)
PROGRAM
tried=77
for python in python3.13 python3.15; do
    "$python" -c '' 2>/dev/null || continue
    "$python" -m venv "$folder/$python"
    "$folder/$python/bin/pip" install --quiet --disable-pip-version-check anyio==4.16.0 2>/dev/null || continue
    tried=0
    "$python" --version
    "$folder/$python/bin/python" "$folder/script.py"
done
exit "$tried"
