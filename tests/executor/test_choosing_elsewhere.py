"""get_executor on a system that is not Linux, and with a standard executor that only takes notes."""

from __future__ import annotations

import multiprocessing
import re
from concurrent.futures import process
from types import SimpleNamespace
from typing import ClassVar

import pytest

from pidfdpool import PidfdPoolExecutor, SerialExecutor, get_executor
from pidfdpool.executor import choosing
from pidfdpool.process import cpus


class Standard:
    """In the place of the standard library's executor."""

    made: ClassVar[list[Standard]] = []
    error: Exception | None = None

    def __init__(self, *given, **options):
        if self.error is not None:
            raise self.error
        self.given, self.options, self.ended = given, options, 0
        self.made.append(self)

    def shutdown(self):
        self.ended += 1


@pytest.fixture(autouse=True)
def standard(monkeypatch):
    monkeypatch.setattr(process, "ProcessPoolExecutor", Standard)
    monkeypatch.setattr(Standard, "made", [])
    return Standard


@pytest.fixture
def elsewhere(monkeypatch):
    """Return a function that lets this system be another."""
    return lambda platform: monkeypatch.setattr(choosing, "sys", SimpleNamespace(platform=platform))


@pytest.mark.parametrize(
    ("platform", "kind", "expected"),
    [
        ("linux", "auto", PidfdPoolExecutor),
        ("linux", "pidfdpool", PidfdPoolExecutor),
        ("linux", "standard", Standard),
        ("linux", "serial", SerialExecutor),
        ("darwin", "auto", Standard),
        ("win32", "auto", Standard),
        ("darwin", "standard", Standard),
        ("darwin", "serial", SerialExecutor),
    ],
)
def test_each_system_has_its_best(elsewhere, platform, kind, expected):
    elsewhere(platform)
    executor = get_executor(kind, 2)
    assert type(executor) is expected
    if expected is not Standard:
        assert executor._max_workers == 2
        assert Standard.made == []


@pytest.mark.parametrize("error", [ImportError(), NotImplementedError(), OSError()])
@pytest.mark.parametrize("check", [False, True])
def test_where_the_standard_one_cannot_be_made_the_best_is_a_serial_one(
    elsewhere, standard, error, check, monkeypatch
):
    elsewhere("emscripten")
    monkeypatch.setattr(standard, "error", error)
    executor = get_executor("auto", 3, check_pickling=check, retries=1)
    assert type(executor) is SerialExecutor
    assert (executor._max_workers, executor._policy.retries) == (3, 1)
    assert _copies(executor) is check
    with pytest.raises(type(error)):
        get_executor("standard", 3)


def _copies(executor):
    given: list = []
    return executor.submit(lambda items: items, given).result() is not given


@pytest.mark.parametrize("check", [False, True])
def test_a_serial_one_checks_the_pickling_if_it_is_to(check):
    assert _copies(get_executor("serial", check_pickling=check)) is check


def test_other_errors_are_not_taken_for_a_system_without_processes(elsewhere, standard, monkeypatch):
    elsewhere("darwin")
    with pytest.raises(ValueError, match="max_workers"):
        get_executor("auto", 0)
    monkeypatch.setattr(standard, "error", LookupError())
    with pytest.raises(LookupError):
        get_executor("auto")


@pytest.mark.parametrize(
    ("platform", "there", "asked", "expected"),
    [
        ("win32", 100, None, 61), ("win32", 61, None, 61), ("win32", 8, None, 8), ("win32", 100, 80, 80),
        ("darwin", 100, None, 100), ("darwin", 100, 3, 3),
    ],
)  # fmt: skip
def test_windows_can_wait_for_61_workers_unless_somebody_asks_for_more(
    elsewhere, monkeypatch, platform, there, asked, expected
):
    elsewhere(platform)
    monkeypatch.setattr(cpus, "usable", lambda: there)
    assert get_executor("standard", asked).given[0] == expected


def test_it_gets_what_it_has():
    context = multiprocessing.get_context("spawn")
    executor = get_executor("standard", 3, mp_context=context, initializer=print, initargs=[1, 2])
    assert executor.given == (3, context, print, (1, 2))
    assert executor.options == {"max_tasks_per_child": None}
    executor = get_executor("standard", 3, max_tasks_per_child=7, mp_context="forkserver")
    assert (executor.given[0], *executor.given[2:]) == (3, None, ())
    assert executor.given[1].get_start_method() == "forkserver"
    assert executor.options == {"max_tasks_per_child": 7}
    executor = get_executor("standard", 3, initargs=[1], preload=["json"])
    assert executor.given == (3, None, None, ())
    assert executor.ended == 0


@pytest.mark.parametrize(
    ("platform", "kind", "why"),
    [
        ("linux", "standard", "which kind='standard' asks for"),
        ("darwin", "standard", "which kind='standard' asks for"),
        ("darwin", "auto", "which get_executor() has chosen because this is not Linux"),
    ],
)
@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ({"min_workers": 1, "retries": 2, "timeout": 3.0}, "retries", "2"),
        ({"timeout": 3.0, "preload": print}, "timeout", "3.0"),
        ({"spin": 0.5, "preload": ["json", print]}, "preload", "<built-in function print>"),
        ({"on_crash": "isolate"}, "on_crash", "'isolate'"),
    ],
    ids=str,
)
def test_what_it_cannot_do_is_refused_and_the_one_that_was_made_is_ended(
    elsewhere, standard, platform, kind, why, options, name, value
):
    elsewhere(platform)
    told = (
        f"{name} is {value}, and the standard library's ProcessPoolExecutor, {why}, has nothing like it. "
        f"Leave {name} out, or use kind='pidfdpool' on Linux."
    )
    with pytest.raises(TypeError, match=f"^{re.escape(told)}$"):
        get_executor(kind, 2, **options)
    assert [made.ended for made in standard.made] == [1]


def test_what_it_does_anyway_is_not_refused(standard):
    executor = get_executor("standard", 2, retries=0, timeout=None, on_crash="break", cancel_kills=False, spin=0.5)
    assert type(executor) is standard
    assert executor.ended == 0


def test_where_it_cannot_be_made_it_does_not_matter_what_it_cannot_do(elsewhere, standard, monkeypatch):
    elsewhere("emscripten")
    monkeypatch.setattr(standard, "error", NotImplementedError())
    assert type(get_executor("auto", 2, retries=2)) is SerialExecutor


@pytest.mark.parametrize("name", ["time_out", "max_worker"])
def test_a_name_that_does_not_exist_is_refused_before_anything_is_made(standard, name):
    with pytest.raises(TypeError, match=f"get_executor.*{name}"):
        get_executor("standard", 2, **{name: 3})
    assert standard.made == []
