#!/usr/bin/env bash
# A dask LocalCluster that was closed leaves its program with a fixed hash seed and one thread for each library.
#
# distributed 2026.8.0, CPython 3.13.0. To start a worker in a process of its own, its nanny sets variables in the
# environment of the program that makes the cluster, and nobody removes them. So every program that this one starts
# later hashes text by the same seed (PYTHONHASHSEED) and computes with one thread (OMP_NUM_THREADS and its kin), and
# so does numpy in this one, if it is imported later. The thread limits are meant for the workers; the seed makes what
# depends on the order of a set repeatable in tests behind this one, and only there. Seen:
#     before: 2 seeds in 2 programs
#     after: 1 seed in 2 programs
#     left: MALLOC_TRIM_THRESHOLD_ MKL_NUM_THREADS OMP_NUM_THREADS OPENBLAS_NUM_THREADS PYTHONHASHSEED __DASK_PARENT_PID
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/cluster.py" <<'PROGRAM'
import os
import subprocess
import sys

import distributed


def hashes():
    command = [sys.executable, "-c", "print(hash('text'))"]
    return len({subprocess.run(command, capture_output=True, check=True).stdout for _ in range(2)})


if __name__ == "__main__":
    before = dict(os.environ)
    seeds = hashes()
    print("before:", seeds, "seeds in 2 programs")
    distributed.LocalCluster(n_workers=1, processes=True, dashboard_address=None).close()
    left = sorted(name for name in os.environ if os.environ[name] != before.get(name))
    print("after:", hashes(), "seed in 2 programs")
    print("left:", *left)
    sys.exit(seeds != 2 or hashes() != 1 or not {"PYTHONHASHSEED", "OMP_NUM_THREADS"} <= set(left))
PROGRAM
python3.13 -c '' 2>/dev/null || exit 77
python3.13 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check distributed==2026.8.0 2>/dev/null || exit 77
env -u PYTHONHASHSEED -u OMP_NUM_THREADS "$folder/venv/bin/python" "$folder/cluster.py"
