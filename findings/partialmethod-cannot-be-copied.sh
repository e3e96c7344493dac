#!/usr/bin/env bash
# functools.partialmethod objects can be neither copied nor pickled any more.
#
# CPython 3.14.10 and 3.15.2. partialmethod shares its __new__ with partial since 3.14, but not partial's __reduce__:
# it is rebuilt by object's own way, which calls __new__ without the function. So copy.copy, copy.deepcopy and a
# round trip through pickle raise TypeError. With 3.13.0 all three return a partialmethod. Whoever rebuilds a class
# from what it holds (cloudpickle) meets it with every class that has such a method.
#
# Seen with both:
#     copy: TypeError: _partial_new() missing 1 required positional argument: 'func'
#     deepcopy: TypeError: _partial_new() missing 1 required positional argument: 'func'
#     pickle: TypeError: _partial_new() missing 1 required positional argument: 'func'
set -euo pipefail
tried=77
for python in python3.14 python3.15; do
    "$python" -c '' 2>/dev/null || continue
    tried=0
    "$python" - <<'PROGRAM'
import copy, functools, pickle, sys

made = functools.partialmethod(print, 1)
ways = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda it: pickle.loads(pickle.dumps(it))}
print(sys.version.split()[0])
failed = 0
for name, way in ways.items():
    try:
        print(f"{name}: {type(way(made)).__name__}")
    except TypeError as error:
        print(f"{name}: TypeError: {error}")
        failed += 1
sys.exit(failed != 3)
PROGRAM
done
exit "$tried"
