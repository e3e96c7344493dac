"""Each case runs once for the standard pool and once for each of ours; the outcomes become the rows of a table.

A case that fails with the standard pool is a finding, not a failure: it is reported as expected, and the table says
what was observed. With ours it fails.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress

import pytest

from pidfdpool.pidfd import Pidfd
from tests.conditions import eventually, processes_of_this_run
from tests.conftest import leftovers
from tests.hosts import page
from tests.hosts.starting_gunicorn import OLD, OLD_NEEDS

STANDARD = "standard"
CONTENDERS = {"ours": (STANDARD, "spawn"), "both": (STANDARD, "spawn", "fork")}

_rows = pytest.StashKey[page.Rows]()


def pytest_addoption(parser):
    parser.addoption("--page", help="write the table of hosts to this file")
    parser.addoption("--only", choices=["ours", STANDARD], help="run the cases with one of the pools only")


def pytest_configure(config):
    config.stash[_rows] = page.Rows()


def pytest_generate_tests(metafunc):
    """Run a case with each contender: `case(..., ways="both")` with ours in both ways of starting the template."""
    marker = metafunc.definition.get_closest_marker("case")
    if marker is None or "contender" not in metafunc.fixturenames:
        return
    names = CONTENDERS[marker.kwargs.get("ways", "ours")]
    only = metafunc.config.getoption("--only")
    if only is not None:
        names = [name for name in names if (name == STANDARD) == (only == STANDARD)]
    metafunc.parametrize("contender", names)


@pytest.fixture(autouse=True)
def nothing_is_left(request):
    """Fail a case of ours that leaves anything behind; clean up after the standard pool, and note what it left."""
    callspec = getattr(request.node, "callspec", None)
    if callspec is None or callspec.params.get("contender") != STANDARD:
        # Hosts have shared memory of their own; that ours have none is tested with the pool.
        yield from leftovers(shared_memory=False)
        return
    yield
    with suppress(AssertionError):
        eventually(lambda: not processes_of_this_run(), "nothing is left of the case", seconds=1.0)
    left = processes_of_this_run()
    if left:
        request.node.user_properties.append(("left", len(left)))
    for pid in left:
        with suppress(ProcessLookupError), Pidfd.open(pid) as process:
            process.send_signal(9)
            process.wait(5)


@pytest.fixture(scope="session")
def old_gunicorn(tmp_path_factory):
    """Install an old release of gunicorn for this run, beside the one that is there, and return its folder."""
    folder = str(tmp_path_factory.mktemp("gunicorn"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, *OLD_NEEDS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"gunicorn {OLD} cannot be installed: {done.stderr.strip()[-300:]}")
    return folder


@pytest.fixture
def folder_of(request):
    """Return a function from a release of gunicorn to the folder that it is in; None: where Python finds it."""
    return lambda release: request.getfixturevalue("old_gunicorn") if release == OLD else None


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    marker = item.get_closest_marker("case")
    callspec = getattr(item, "callspec", None)
    if marker is None or callspec is None or "contender" not in callspec.params or report.skipped:
        return
    contender = callspec.params["contender"]
    seen = page.first_line(call.excinfo.value) if call.excinfo is not None else None
    section, title = marker.args
    variants = {name: value for name, value in callspec.params.items() if name != "contender"}
    item.config.stash[_rows].add(section, title, variants, contender == STANDARD, report.when, seen)
    if report.when == "teardown":
        left = dict(item.user_properties).get("left")
        if left:
            item.config.stash[_rows].note(section, title, variants, f"leaves {left} processes")
    if contender == STANDARD and report.failed:
        report.outcome = "skipped"
        report.wasxfail = seen


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash[_rows]
    if not rows:
        return
    terminalreporter.section("what happens in hosts")
    terminalreporter.write(rows.as_text())
    path = config.getoption("--page")
    if path:
        with open(path, "w") as file:
            file.write(rows.as_page())
