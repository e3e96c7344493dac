"""Each run can write what it saw as JSON; `python -m tests.scripts.page` makes the page of several such files."""

from __future__ import annotations

from tests.scripts import rows
from tests.scripts.contenders import CONTENDERS

_seen: list[dict[str, str]] = []  # of the process that reports


def pytest_addoption(parser):
    parser.addoption("--rows", help="write what is seen of each script to this file, as JSON")
    parser.addoption("--pools", help="run the scripts with these pools only, such as ours,ours-fork")


def pytest_generate_tests(metafunc):
    """Run a script with each pool that is asked for."""
    if "contender" not in metafunc.fixturenames:
        return
    only = metafunc.config.getoption("--pools", None)
    chosen = [one for one in CONTENDERS if only is None or one.name in only.split(",")]
    metafunc.parametrize("contender", chosen, ids=[one.name for one in chosen])


def pytest_runtest_logreport(report):
    if report.when == "call":
        _seen.extend(value for name, value in report.user_properties if name == "row")


def pytest_terminal_summary(config):
    path = config.getoption("--rows", None)
    if path and _seen:
        rows.write(path, _seen)
