#!/usr/bin/env bash
# A process that is forked and only counts something resets the largest and smallest value of every Prometheus gauge.
#
# prometheus_client 0.26.0 with PROMETHEUS_MULTIPROC_DIR, CPython 3.13.0 and 3.15.2. Each process writes its values into
# files of its own. When a forked process changes any metric for the first time, all metrics that it has inherited get
# an entry of 0 in its files, gauges included, which it never set. A gauge with multiprocess_mode="min" then says 0, as
# does one with "max" whose values are negative, until a process with that number starts anew. "mostrecent" is right,
# because it looks at the time of an entry. Seen, before the fork and after a child has incremented a counter:
#     free (min) 5.0, then 0.0
#     temperature (max) -5.0, then 0.0
#     last (mostrecent) 7.0, then 7.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/gauges.py" <<'PROGRAM'
import os
import sys

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.multiprocess import MultiProcessCollector

MODES = {"free": "min", "temperature": "max", "last": "mostrecent"}
gauges = {name: Gauge(name, "a gauge", multiprocess_mode=mode) for name, mode in MODES.items()}
jobs = Counter("jobs", "a counter")


def collected():
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return {name: registry.get_sample_value(name) for name in MODES}


for name, value in (("free", 5), ("temperature", -5), ("last", 7)):
    gauges[name].set(value)
before = collected()
child = os.fork()
if child == 0:
    jobs.inc()
    os._exit(0)
os.waitpid(child, 0)
after = collected()
for name, mode in MODES.items():
    print(f"{name} ({mode}) {before[name]}, then {after[name]}")
sys.exit(
    before != {"free": 5.0, "temperature": -5.0, "last": 7.0}
    or after != {"free": 0.0, "temperature": 0.0, "last": 7.0}
)
PROGRAM
tried=77
for python in python3.13 python3.15; do
    "$python" -c '' 2>/dev/null || continue
    "$python" -m venv "$folder/$python"
    "$folder/$python/bin/pip" install --quiet --disable-pip-version-check prometheus_client==0.26.0 2>/dev/null || continue
    tried=0
    "$python" --version
    mkdir "$folder/values-$python"
    PROMETHEUS_MULTIPROC_DIR="$folder/values-$python" "$folder/$python/bin/python" "$folder/gauges.py"
done
exit "$tried"
