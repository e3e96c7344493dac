#!/usr/bin/env bash
# The fork server of 3.14 runs the script in a process that calls itself "MainProcess".
#
# CPython 3.14.10 and 3.15.2, where forkserver is the default. The server imports the main module before it forks
# anybody, and at that moment multiprocessing.current_process().name is "MainProcess" in it, as in the program itself.
# Up to 3.13 the forked process runs the script, and is called "ForkServerProcess-1". So a script that asks for the
# name to find out where it is takes the server for the program. (parent_process() is None in each of them.) Seen:
#     3.13.0: MainProcess, then ForkServerProcess-1
#     3.14.10 and 3.15.2: MainProcess, then MainProcess
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/script.py" <<'PROGRAM'
import multiprocessing

print(multiprocessing.current_process().name, flush=True)

def work():
    pass

if __name__ == "__main__":
    process = multiprocessing.get_context("forkserver").Process(target=work)
    process.start()
    process.join()
PROGRAM
tried=77
for python in python3.13 python3.14 python3.15; do
    "$python" -c '' 2>/dev/null || continue
    tried=0
    seen=$("$python" "$folder/script.py" | paste -sd ' ')
    echo "$("$python" --version): $seen"
    case "$python" in
        python3.13) [ "$seen" = "MainProcess ForkServerProcess-1" ] ;;
        *) [ "$seen" = "MainProcess MainProcess" ] ;;
    esac
done
exit "$tried"
