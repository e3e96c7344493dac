"""For hosts that are no packages of Python's."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.hosts.far import database, debian


@pytest.fixture(scope="session")
def home():
    """Return the folder in which Debian's Python finds the pool and the programs of these tests."""
    with debian.installed() as folder:
        yield folder


@pytest.fixture(scope="session")
def cluster():
    """Return the files of a database, which PostgreSQL is started on a copy of."""
    with database.cluster() as made:
        yield made


@pytest.fixture(scope="session")
def display():
    """Return the name of a screen that exists in memory only."""
    debian.needs("Xvfb")
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "640x480x24", "-nolisten", "tcp"]
    # Without the mark of this run: it is no part of any case.
    server = subprocess.Popen(
        command, env={"PATH": debian.PATH}, pass_fds=[writer], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(writer)
    with open(reader) as said:
        number = said.readline().strip()
    yield f":{number}"
    server.terminate()
    server.wait(10)
