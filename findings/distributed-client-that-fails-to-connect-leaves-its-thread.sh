#!/usr/bin/env bash
# A dask client that cannot reach its scheduler raises, and leaves its thread and descriptors behind.
#
# distributed 2026.8.0, CPython 3.13.0, Linux 6.18. `Client(address)` starts a thread with an event loop, "IO loop",
# before it connects. If nobody listens at the address it raises OSError after the timeout. There is no client then
# that could be closed, and the thread goes on for as long as the process lives, each attempt with one of its own.
# A library that tries again until a scheduler is there gathers them. Seen after three attempts, each followed by a
# collection:
#     before: 1 thread; after: 4 threads, of which 3 are called "IO loop", and 9 descriptors more
# A client that has connected and is closed leaves none.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/connect.py" <<'PROGRAM'
import gc
import os
import socket
import sys
import threading

import distributed

ATTEMPTS = 3


def names():
    return [thread.name for thread in threading.enumerate()]


def descriptors():
    return len(os.listdir("/proc/self/fd"))


with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]  # nobody listens there any more, after this block
gc.collect()
print(f"distributed {distributed.__version__}; before:", names())
before = descriptors()
for _ in range(ATTEMPTS):
    try:
        distributed.Client(f"tcp://127.0.0.1:{port}", timeout=0.5)
    except OSError as error:
        print(type(error).__name__, "was raised")
    gc.collect()
more = descriptors() - before
print("after:", names(), f"and {more} descriptors more")
sys.exit(names().count("IO loop") != ATTEMPTS or more < ATTEMPTS)
PROGRAM
python3.13 -c '' 2>/dev/null || exit 77
python3.13 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check distributed==2026.8.0 2>/dev/null || exit 77
"$folder/venv/bin/python" "$folder/connect.py"
