"""What a template is told of the host and its pool, field by field, and which pools forward what is logged."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from types import SimpleNamespace

import pytest

from pidfdpool.process import log_levels
from pidfdpool.serialization import payload, picklers, preparation, scripts
from pidfdpool.template import recipe
from pidfdpool.template.recipe import Recipe
from pidfdpool.worker import context
from pidfdpool.worker.boot import PIDFD, SENTINEL, WORKER_PROGRAM


def recipe_of(way="exec", **options):
    return Recipe(**{"way": way, "preload": (), "preload_call": None, "initializer": None} | options)


@pytest.fixture
def configured(monkeypatch):
    """Return a function that says whether this program has set up logging."""

    def set_configured(value):
        monkeypatch.setattr(log_levels, "is_configured", lambda: value)

    set_configured(True)
    return set_configured


def test_what_is_wanted_of_workers_is_told_as_it_was_said(configured):
    options = {
        "watch_memory": True,
        "capture_stderr": True,
        "spin": 0.25,
        "threads": 3,
        "pool_size": 5,
        "program": ("module", "Class"),
        "preload": ("one", "two"),
        "forward_logs": False,
    }
    boot, fds = recipe_of(**options).boot(SENTINEL)
    wanted = {name: value for name, value in options.items() if name != "forward_logs"}
    assert {name: getattr(boot, name) for name in wanted} == wanted
    assert boot.handles == SENTINEL
    assert boot.logs is None
    assert fds == []


def test_what_is_not_said_is_off(configured):
    configured(False)
    boot, _ = recipe_of().boot(PIDFD)
    assert (boot.watch_memory, boot.capture_stderr, boot.spin, boot.threads, boot.pool_size) == (
        False,
        False,
        0.0,
        None,
        1,
    )
    assert (boot.program, boot.preload, boot.runs_script, boot.forked) == (WORKER_PROGRAM, (), False, False)
    assert (boot.logs, boot.handles, boot.has_preload) == (None, PIDFD, preparation.capture() is not None)


def test_a_template_knows_its_host_as_that_is_when_it_starts(monkeypatch):
    made = recipe_of()
    monkeypatch.setattr(sys, "argv", ["program", "later"])
    monkeypatch.setattr(multiprocessing.current_process(), "_config", {"authkey": b"secret"})
    monkeypatch.setattr(multiprocessing.current_process(), "_name", "TheHost")
    boot, _ = made.boot(PIDFD)
    assert (boot.argv, boot.host_name, boot.host_pid, boot.authkey) == (
        ["program", "later"],
        "TheHost",
        os.getpid(),
        b"secret",
    )
    assert boot.argv is not sys.argv
    assert type(boot.authkey) is bytes, "multiprocessing's own kind refuses to be pickled"


@pytest.mark.parametrize("way", ["exec", "fork"])
def test_only_a_fresh_interpreter_is_told_of_the_script_and_of_what_tools_prepare(monkeypatch, way):
    monkeypatch.setattr(preparation, "capture", lambda: b"prepared")
    boot, _ = recipe_of(way).boot(PIDFD)
    if way == "exec":
        assert boot.script == scripts.current().as_fields()
        assert boot.preparation == b"prepared"
    else:
        assert (boot.script, boot.preparation, boot.forked) == (None, None, True)


def test_calls_are_pickled_for_a_fresh_interpreter_and_are_the_hosts_own_in_a_fork():
    call, initializer = os.getpid, (print, ("text",))
    boot, _ = recipe_of("fork", preload_call=call, initializer=initializer).boot(PIDFD)
    assert boot._preload_call is call
    assert boot._initializer is initializer
    boot, _ = recipe_of(preload_call=call, initializer=initializer).boot(PIDFD)
    assert payload.loads(boot._preload_call) is call
    assert boot._initializer is not initializer
    assert boot.dump()


@pytest.mark.parametrize("which", ["preload_call", "initializer"])
def test_a_call_that_needs_the_script_has_it_run_by_this_and_each_later_template(monkeypatch, which):
    monkeypatch.setattr(payload, "needs_script", lambda _buffers: True)
    made = recipe_of(**{which: os.getpid if which == "preload_call" else (print, ())})
    assert not made.runs_script
    assert made.boot(PIDFD)[0].runs_script
    assert made.runs_script
    monkeypatch.setattr(payload, "needs_script", lambda _buffers: False)
    assert made.boot(PIDFD)[0].runs_script


def test_a_call_that_does_not_need_the_script_runs_none(monkeypatch):
    monkeypatch.setattr(payload, "needs_script", lambda _buffers: False)
    made = recipe_of(preload_call=os.getpid, initializer=(print, ()))
    assert not made.boot(PIDFD)[0].runs_script


def test_a_fork_of_the_host_has_its_script_run_already():
    made = recipe_of("fork")
    made.runs_script = True
    assert not made.boot(PIDFD)[0].runs_script
    assert made.shared_main is not None
    assert recipe_of("exec").shared_main is None


def test_what_calls_share_is_for_each_later_template_too(monkeypatch):
    """Guards: the resources of the first start's pickles were taken for those of the next task's."""
    popped = []
    monkeypatch.setattr(picklers, "shared_resources", [])
    monkeypatch.setattr(picklers, "pop_shared_resources", lambda: popped.append(1))
    recipe_of().boot(PIDFD)
    assert popped == []
    monkeypatch.setattr(picklers, "shared_resources", ["one"])
    recipe_of().boot(PIDFD)
    assert popped == [1]


def test_a_pool_within_a_worker_shares_the_cpus_with_that_workers_siblings(monkeypatch):
    monkeypatch.setattr(context, "worker", SimpleNamespace(siblings=4))
    size = recipe_of(pool_size=3).boot(PIDFD)[0].pool_size
    monkeypatch.undo()
    assert size == 12


# ---- what is logged ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "way", "may"),
    [
        (None, "exec", True),
        (None, "fork", False),
        (False, "exec", False),
        (False, "fork", False),
        (True, "exec", True),
        (True, "fork", True),
        (0, "fork", True),
        (30, "fork", True),
        ((), "fork", True),
    ],
)
def test_who_may_send_the_host_what_it_logs(choice, way, may):
    assert recipe_of(way, forward_logs=choice).may_forward_logs is may


@pytest.mark.parametrize(
    ("choice", "asked", "least", "names"),
    [
        (None, False, 0, None),
        (True, True, 0, None),
        (30, True, 30, None),
        (("one", "two"), True, 0, ("one", "two")),
    ],
)
def test_workers_are_told_what_of_it_is_wanted(configured, choice, asked, least, names):
    made = recipe_of(forward_logs=choice)
    assert made.log_levels is None
    logs = made.boot(PIDFD)[0].logs
    assert logs == (asked, least, names, log_levels.current())
    assert made.log_levels == log_levels.current()


def test_a_program_without_logging_is_asked_once_and_then_never(configured):
    configured(False)
    made = recipe_of()
    assert made.boot(PIDFD)[0].logs is None
    configured(True)
    assert made.boot(PIDFD)[0].logs is None
    assert not made.may_forward_logs


def test_who_has_asked_for_it_gets_it_also_without_logging(configured):
    configured(False)
    assert recipe_of(forward_logs=True).boot(PIDFD)[0].logs is not None


def test_who_had_logging_at_the_first_template_has_it_at_each_later_one(configured):
    made = recipe_of()
    made.boot(PIDFD)
    configured(False)
    assert made.boot(PIDFD)[0].logs is not None


def test_a_change_of_levels_while_they_are_read_is_noticed(configured, monkeypatch):
    current = log_levels.current

    def change_and_read():
        found = current()
        logging.root.setLevel(logging.root.level)
        return found

    monkeypatch.setattr(log_levels, "current", change_and_read)
    before = log_levels.version()
    recipe_of().boot(PIDFD)
    assert log_levels.version() != before


# ---- the way -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("way", "forks"), [("fork", True), ("exec", False), ("any", False)])
def test_the_way_is_as_was_said(way, forks):
    assert recipe_of(way).fork is forks


def test_without_locks_nothing_is_pickled_to_find_out_the_way(monkeypatch):
    """Guards: each executor pickled its initializer twice."""
    monkeypatch.setitem(sys.modules, "multiprocessing.synchronize", None)
    monkeypatch.delitem(sys.modules, "multiprocessing.synchronize")
    monkeypatch.setattr(recipe.inherited, "capture", lambda _: pytest.fail("it was pickled"))
    assert not recipe_of("any", initializer=(print, ())).fork
