#!/usr/bin/env bash
# An InterpreterPoolExecutor takes objects of a script's classes, and can give back neither results nor errors of them.
#
# CPython 3.14.10 and 3.15.2. A worker's interpreter runs the script as a module that is called "<fake __main__>", and
# classes that are defined there belong to it. So an argument arrives and is an instance of the class, but the same
# object cannot be returned: the name means nothing to the main interpreter. What is raised says that the object
# does not support cross-interpreter data, which is said of no argument of that class. An exception of a class of the
# script arrives as ExecutionFailed, and an `except` for that class does not catch it. A ProcessPoolExecutor gives both
# back as they are. Seen:
#     argument: is an instance there: True
#     result: NotShareableError: object does not support cross-interpreter data
#     exception: ExecutionFailed
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/script.py" <<'PROGRAM'
import sys
from concurrent.futures import InterpreterPoolExecutor


class Point:
    pass


class OutOfRange(Exception):
    pass


def is_point(value):
    return isinstance(value, Point)


def give_back(value):
    return value


def fail():
    raise OutOfRange


if __name__ == "__main__":
    with InterpreterPoolExecutor(1) as pool:
        taken = pool.submit(is_point, Point()).result()
        result = pool.submit(give_back, Point()).exception()
        exception = pool.submit(fail).exception()
    print("argument: is an instance there:", taken)
    print(f"result: {type(result).__name__}: {result}")
    print("exception:", type(exception).__name__)
    names = type(result).__name__, type(exception).__name__
    sys.exit(taken is not True or names != ("NotShareableError", "ExecutionFailed"))
PROGRAM
tried=77
for python in python3.14 python3.15; do
    "$python" -c '' 2>/dev/null || continue
    tried=0
    "$python" --version
    "$python" "$folder/script.py"
done
exit "$tried"
