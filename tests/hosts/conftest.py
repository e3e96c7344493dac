"""Each case runs once for the standard pool and once for each of ours; the outcomes become the rows of a table.

A case that fails with the standard pool is a finding, not a failure: it is reported as expected, and the table says
what was observed. With ours it fails.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from pidfdpool.pidfd import Pidfd
from tests.conditions import eventually, processes_of_this_run
from tests.conftest import leftovers
from tests.hosts import page
from tests.hosts.starting_gunicorn import OLD, OLD_NEEDS

STANDARD = "standard"
CONTENDERS = {"ours": (STANDARD, "spawn"), "both": (STANDARD, "spawn", "fork")}
# What --only names; "default" is ours as it starts by default.
ONLY = {"ours": ("spawn", "fork"), "default": ("spawn",), STANDARD: (STANDARD,)}

_rows = page.Rows()  # of the process that reports


def pytest_addoption(parser):
    parser.addoption("--page", help="write what this run sees to its part of this file")
    parser.addoption("--only", choices=list(ONLY), help="run the cases with these pools only")


def pytest_generate_tests(metafunc):
    """Run a case with each contender: `case(..., ways="both")` with ours in both ways of starting the template."""
    marker = metafunc.definition.get_closest_marker("case")
    if marker is None or "contender" not in metafunc.fixturenames:
        return
    names = CONTENDERS[marker.kwargs.get("ways", "ours")]
    only = metafunc.config.getoption("--only")
    if only is not None:
        names = [name for name in names if name in ONLY[only]]
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
    """Add to the report what it says for the table; it may travel to another process, with pytest-xdist."""
    outcome = yield
    report = outcome.get_result()
    marker = item.get_closest_marker("case")
    callspec = getattr(item, "callspec", None)
    if marker is None or callspec is None or "contender" not in callspec.params or report.skipped:
        return
    section, title = marker.args
    variants = [str(value) for name, value in callspec.params.items() if name != "contender" and _is_plain(value)]
    standard = callspec.params["contender"] == STANDARD
    seen = page.first_line(call.excinfo.value) if call.excinfo is not None else None
    file, line, _ = item.location
    report.row = {
        "place": f"{file}:{line:06}",
        "section": section,
        "title": f"{title} ({', '.join(variants)})" if variants else title,
        "standard": standard,
        "when": report.when,
        "seen": seen,
        "left": dict(item.user_properties).get("left", 0) if report.when == "teardown" else 0,
    }
    if standard and report.failed:
        report.outcome = "skipped"
        report.wasxfail = seen


def _is_plain(value):
    return isinstance(value, str | int | float)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report):
    row = getattr(report, "row", None)
    if row is not None:
        _rows.add(**row)


def pytest_terminal_summary(terminalreporter, config):
    if not _rows:
        return
    terminalreporter.section("what happens in hosts")
    terminalreporter.write(_rows.as_text())
    path = config.getoption("--page")
    if path:
        page_file = Path(path)
        page_file.write_text(_rows.as_page(page_file.read_text() if page_file.exists() else ""))
