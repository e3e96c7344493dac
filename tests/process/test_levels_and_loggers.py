"""Levels of loggers: each kind of change is noticed, and only what was set travels and is applied."""

from __future__ import annotations

import logging
from functools import partial
from types import SimpleNamespace

import pytest

from pidfdpool.process import log_levels


@pytest.fixture
def loggers(monkeypatch):
    """Give a tree of loggers of the test's own: a function that makes one, and the root."""
    root = logging.RootLogger(logging.WARNING)
    manager = logging.Manager(root)
    monkeypatch.setattr(root, "manager", manager, raising=False)
    names = {name: getattr(logging, name) for name in ("Logger", "NullHandler", "NOTSET")}
    names |= {"root": root, "getLogger": manager.getLogger, "disable": partial(setattr, manager, "disable")}
    monkeypatch.setattr(log_levels, "logging", SimpleNamespace(**names))
    return SimpleNamespace(make=manager.getLogger, root=root, manager=manager)


def test_a_level_or_being_disabled_travels_and_nothing_else(loggers):
    loggers.make("both").setLevel(10)
    loggers.make("both").disabled = True
    loggers.make("level").setLevel(20)
    loggers.make("off").disabled = True
    loggers.make("neither.child")  # which makes a placeholder of its parent
    loggers.manager.disable = 30
    loggers.root.disabled = True
    assert log_levels.current() == (
        30,
        {"": (logging.WARNING, True), "both": (10, True), "level": (20, False), "off": (0, True)},
    )


def test_levels_are_plain_numbers_whatever_they_were_set_to(loggers):
    class Level(int):
        pass

    loggers.make("one").level = Level(15)
    loggers.root.level = Level(25)
    loggers.manager.disable = Level(5)
    disable, levels = log_levels.current()
    numbers = [disable, levels[""][0], levels["one"][0]]
    assert numbers == [5, 25, 15]
    assert {type(each) for each in numbers} == {int}


def test_the_first_levels_are_applied_as_they_are(loggers):
    log_levels.apply((30, {"": (25, True), "one": (15, False)}), None)
    assert (loggers.manager.disable, loggers.root.level, loggers.root.disabled) == (30, 25, True)
    assert (loggers.make("one").level, loggers.make("one").disabled) == (15, False)


def test_what_is_set_no_more_is_as_if_it_had_never_been(loggers):
    first = (30, {"": (25, False), "one": (15, True)})
    log_levels.apply(first, None)
    log_levels.apply((0, {"": (25, False)}), first)
    assert loggers.manager.disable == 0
    assert (loggers.make("one").level, loggers.make("one").disabled) == (logging.NOTSET, False)


def test_what_a_task_has_disabled_stays_so_where_the_host_has_changed_nothing(loggers):
    first = (30, {"": (25, False)})
    log_levels.apply(first, None)
    loggers.manager.disable = 50
    loggers.root.setLevel(10)
    log_levels.apply(first, first)
    assert (loggers.manager.disable, loggers.root.level) == (50, 10)


def test_a_change_in_either_part_of_a_pair_is_applied(loggers):
    first = (0, {"": (25, False), "one": (15, False)})
    log_levels.apply(first, None)
    log_levels.apply((0, {"": (25, False), "one": (15, True)}), first)
    assert loggers.make("one").disabled
    log_levels.apply((0, {"": (25, False), "one": (35, True)}), (0, {"": (25, False), "one": (15, True)}))
    assert loggers.make("one").level == 35


def test_each_change_makes_another_version_and_a_look_makes_none(loggers):
    seen = [log_levels.version()]
    loggers.make("one").setLevel(10)
    seen.append(log_levels.version())
    loggers.root.setLevel(10)
    seen.append(log_levels.version())
    assert log_levels.version() == seen[-1]
    assert len(set(seen)) == 3


def test_another_implementation_of_logging_has_one_version(monkeypatch):
    monkeypatch.setattr(log_levels, "logging", SimpleNamespace(root=SimpleNamespace()))
    before = log_levels.version()
    assert log_levels.version() == before


@pytest.mark.parametrize("where", ["root", "logger", "child"])
def test_a_handler_that_writes_counts_wherever_it_is(loggers, where):
    logger = {"root": loggers.root, "logger": loggers.make("one"), "child": loggers.make("one.child")}[where]
    assert not log_levels.is_configured()
    logger.addHandler(logging.NullHandler())
    assert not log_levels.is_configured()
    logger.addHandler(logging.Handler())
    assert log_levels.is_configured()


def test_a_kind_of_null_handler_that_is_the_programs_own_may_write(loggers):
    class Own(logging.NullHandler):
        pass

    loggers.make("one").addHandler(Own())
    assert log_levels.is_configured()


def test_the_handler_of_the_standards_pools_does_not_count_and_those_after_it_do(loggers):
    loggers.make("concurrent.futures").addHandler(logging.Handler())
    loggers.make("between.child")
    assert not log_levels.is_configured()
    loggers.make("later").addHandler(logging.Handler())
    assert log_levels.is_configured()


def test_a_logger_that_fails_hides_no_other(loggers):
    class Odd(logging.Logger):
        @property
        def handlers(self):
            raise RuntimeError

        @handlers.setter
        def handlers(self, _handlers):
            pass

    loggers.manager.loggerDict["odd"] = Odd("odd")
    loggers.make("later").addHandler(logging.Handler())
    assert log_levels.is_configured()
