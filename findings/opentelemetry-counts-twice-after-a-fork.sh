#!/usr/bin/env bash
# A forked process exports what its parent has counted as well, and OpenTelemetry calls it another instance.
#
# opentelemetry-sdk 1.45.2, CPython 3.13.0 and 3.15.2. The SDK is made for forks: in the child it starts the thread that
# exports anew, and gives the resource a service.instance.id of its own. The sums of the counters stay as they were at
# the fork. So the child exports, as its own since the start of the parent, what the parent exports, too. Whoever adds
# up the instances, as one does to get the count of a service, counts that as often as there are processes. Seen, for
# 10 requests in the parent, a fork, and 1 in the child:
#     parent 10
#     child 11
#     two instances, 21 requests
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/count.py" <<'PROGRAM'
import os
import sys

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, PeriodicExportingMetricReader


class Lines(MetricExporter):
    """Writes the instance and the value of each point into a pipe."""

    def export(self, metrics_data, timeout_millis=10_000, **_):
        for resource in metrics_data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        instance = resource.resource.attributes["service.instance.id"]
                        os.write(write_end, f"{instance} {point.value}\n".encode())
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis=10_000):
        return True

    def shutdown(self, timeout_millis=30_000, **_):
        pass


read_end, write_end = os.pipe()
provider = MeterProvider([PeriodicExportingMetricReader(Lines(), export_interval_millis=3_600_000)])
requests = provider.get_meter("service").create_counter("requests")
requests.add(10)
child = os.fork()
if child == 0:
    requests.add(1)
    provider.force_flush()
    os._exit(0)
os.waitpid(child, 0)
provider.force_flush()
last = dict(line.split() for line in os.read(read_end, 65536).decode().splitlines())
provider.shutdown()
values = sorted(map(int, last.values()))
print("parent", values[0])
print("child", values[-1])
print("two instances," if len(last) == 2 else f"{len(last)} instance,", sum(values), "requests")
sys.exit(values != [10, 11])
PROGRAM
tried=77
for python in python3.13 python3.15; do
    "$python" -c '' 2>/dev/null || continue
    "$python" -m venv "$folder/$python"
    "$folder/$python/bin/pip" install --quiet --disable-pip-version-check opentelemetry-sdk==1.45.2 2>/dev/null || continue
    tried=0
    "$python" --version
    "$folder/$python/bin/python" -W ignore "$folder/count.py"
done
exit "$tried"
