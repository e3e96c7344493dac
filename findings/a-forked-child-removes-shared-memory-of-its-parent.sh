#!/usr/bin/env bash
# A forked child that only attaches to its parent's shared memory removes it when the child ends.
#
# CPython 3.14.10 and 3.15.2. A parent makes a SharedMemory and forks by os.fork(). The child opens it by its name and
# closes it again, which is all that it has to do, and ends. Then the memory has no name any more: nobody else can open
# it, and the parent's own unlink() raises FileNotFoundError. Up to 3.13 the child uses the parent's resource tracker.
# Newer ones close the tracker's descriptor in each child that multiprocessing has not forked itself. So the child
# starts a tracker of its own, which takes what the child has attached to for left behind. Seen:
#     3.11.7, 3.12.1, 3.13.0: still there
#     3.14.10, 3.15.2: removed, after the warning "There appear to be 1 leaked shared_memory objects"
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/program.py" <<'PROGRAM'
import os
import time
from multiprocessing import shared_memory

memory = shared_memory.SharedMemory(create=True, size=64)
pid = os.fork()
if not pid:
    attached = shared_memory.SharedMemory(name=memory.name)
    attached.close()
    os._exit(0)
os.waitpid(pid, 0)
found = "still there"
deadline = time.monotonic() + 5
while found == "still there" and time.monotonic() < deadline:
    try:
        shared_memory.SharedMemory(name=memory.name).close()
    except FileNotFoundError:
        found = "removed"
    time.sleep(0.05)
print(found)
memory.close()
try:
    memory.unlink()
except FileNotFoundError:
    print("unlink: FileNotFoundError")
PROGRAM
tried=77
for python in python3.11 python3.12 python3.13 python3.14 python3.15; do
    "$python" -c '' 2>/dev/null || continue
    tried=0
    seen=$("$python" "$folder/program.py" 2>"$folder/errors" | paste -sd ' ')
    echo "$("$python" --version): $seen"
    case "$python" in
        python3.11 | python3.12 | python3.13) [ "$seen" = "still there" ] ;;
        *)
            [ "$seen" = "removed unlink: FileNotFoundError" ]
            grep -q "leaked shared_memory objects" "$folder/errors"
            ;;
    esac
done
exit "$tried"
