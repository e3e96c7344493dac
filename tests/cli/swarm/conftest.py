"""A supervisor that runs, as its user sees it: signals in, lines and exit codes out."""

from __future__ import annotations

import http.client
import json
import re
import subprocess

import pytest

from tests.conditions import eventually, is_alive

TARGETS = "tests.cli.swarm.targets"
QUICK = ("--restart-pause", "0.05")


class Supervisor:
    """A process that runs `python -m pidfdpool swarm`."""

    def __init__(self, command, folder, function, *arguments, prefix=(), stderr=None):
        self._pids_are_ours = not prefix  # else they may be those of a pid namespace
        self.folder = folder / "notes"
        self.folder.mkdir()
        self._out, self._err = folder / "out", folder / "err"
        line = [*prefix, *command.line("swarm", f"{TARGETS}:{function}", *arguments)]
        with open(self._out, "wb") as out, open(self._err, "wb") as err:
            options = command.options({"stdin": subprocess.DEVNULL, "stdout": out, "stderr": stderr or err})
            self.process = subprocess.Popen(line, **options)

    def out(self):
        return self._out.read_text()

    def err(self):
        return self._err.read_text()

    def notes(self, what):
        """Return what nodes have noted, as (number, attempt, pid)."""
        paths = self.folder.glob(f"{what}-*")
        return sorted(tuple(map(int, path.name.split("-")[1:])) for path in paths)

    def until(self, condition, what):
        return eventually(condition, f"{what}\n{self.err()}")

    def until_noted(self, what, count):
        return self.until(lambda: len(self.notes(what)) >= count and self.notes(what), f"{count} x {what}")

    def until_said(self, text):
        return self.until(lambda: re.search(text, self.err()), text)

    def send(self, number):
        self.process.send_signal(number)

    def port(self):
        return int(self.until_said(r"health checks are answered at http://[^ ]*:(\d+)/")[1])

    def get(self, path, port=None):
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port(), timeout=20)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def ends(self):
        """Return the exit code; fail the test if it does not end."""
        return self.process.wait(40)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()  # and the kernel ends its nodes
        self.process.wait()
        if self._pids_are_ours:
            eventually(lambda: not any(is_alive(pid) for *_, pid in self.notes("lives")), "no node is left")


@pytest.fixture
def supervise(command, tmp_path):
    """Return a function that starts a supervisor whose nodes run a function of `targets`, given the folder."""
    started = []

    def start(function, *arguments, noting=True, **options):
        places = [str(tmp_path / "notes")] if noting else []
        started.append(Supervisor(command, tmp_path, function, *places, *QUICK, *arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.close()
