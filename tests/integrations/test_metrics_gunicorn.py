"""Metrics in a real server that forks, with the configuration that docs/metrics.md shows."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

pytest.importorskip("gunicorn")
pytest.importorskip("prometheus_client")

from tests.conditions import ROOT, eventually
from tests.house.pages import DOCS, blocks_of

APPLICATION = """
import os
from pidfdpool import PidfdPoolExecutor
from pidfdpool.metrics import PrometheusCollector

pool = PidfdPoolExecutor(1)
PrometheusCollector(pool)


def application(environ, start_response):
    pool.submit(pow, 2, 10).result()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


def free_ports(count):
    """Return the first of some consecutive ports that nobody listens on now."""
    while True:
        with contextlib.ExitStack() as held, contextlib.suppress(OSError, OverflowError):
            first = held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            for port in range(first + 1, first + count):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            return first


def get(port, path="/"):
    with contextlib.suppress(OSError):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as response:
            return response.read().decode()
    return ""


def done(port):
    """Return how many tasks the process that has this port for metrics has done; None: nobody has it."""
    found = re.search(r'^pidfdpool_tasks_total\{outcome="done".*\} (.*)$', get(port, "/metrics"), re.MULTILINE)
    return float(found[1]) if found else None


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
def test_each_process_shows_its_own_pool_on_its_own_port(preload, tmp_path):
    (block,) = [block.text for block in blocks_of((DOCS / "metrics.md").read_text()) if "def post_fork" in block.text]
    port = free_ports(5)
    configuration = block.replace("9200", str(port + 1)).replace("workers = 4", "workers = 2")
    assert configuration.count(str(port + 1)) == 2
    (tmp_path / "gunicorn.conf.py").write_text(configuration)
    (tmp_path / "app.py").write_text(APPLICATION)
    command = [sys.executable, "-m", "gunicorn", *preload, "--bind", f"127.0.0.1:{port}", "app"]
    environment = {**os.environ, "PYTHONPATH": ROOT, "HOME": str(tmp_path)}  # where it puts a socket of its own
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        eventually(lambda: [done(one) for one in (port + 1, port + 2)] == [0, 0], "both processes have a port")
        for _ in range(10):
            eventually(lambda: get(port), "a request is answered")
        eventually(lambda: sum(done(one) for one in (port + 1, port + 2)) == 10, "every task is counted once")
        assert done(port + 3) is None
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
