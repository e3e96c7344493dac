"""The levels of loggers as data: every change is noticed, and what another process has changed itself stays."""

from __future__ import annotations

import logging
from time import monotonic

import pytest

from pidfdpool.process import log_levels
from tests.conditions import eventually, run_python

NAME = "levelled.one"


@pytest.fixture(autouse=True)
def as_before():
    yield
    logging.disable(logging.NOTSET)
    for name in (NAME, "levelled"):
        logging.getLogger(name).setLevel(logging.NOTSET)
        logging.getLogger(name).disabled = False


@pytest.mark.parametrize(
    "change",
    [
        lambda: logging.getLogger(NAME).setLevel(logging.DEBUG),
        lambda: logging.root.setLevel(logging.root.level),
        lambda: logging.disable(logging.INFO),
    ],
    ids=["a logger's", "the root's", "disable"],
)
def test_a_change_is_noticed_once(change):
    before = log_levels.version()
    assert log_levels.version() == before
    change()
    after = log_levels.version()
    assert after != before
    assert log_levels.version() == after
    assert logging.getLogger(NAME).isEnabledFor(logging.CRITICAL), "what is kept there disturbs no logger"


def test_a_logger_that_is_enabled_again_is_a_change():
    """Guards: nothing of `logging` changes with `disabled`, and workers left out what such a logger logs for ever."""
    logger = logging.getLogger(NAME)
    logger.disabled = True
    before = log_levels.version(), log_levels.current()
    assert before[1][1][NAME] == (logging.NOTSET, True)
    eventually(lambda: monotonic() > log_levels._look_at, "it is time to look")
    assert log_levels.version() == before[0]
    logger.disabled = False
    eventually(lambda: log_levels.version() != before[0], "the change is noticed")
    assert NAME not in log_levels.current()[1]
    after = log_levels.version()
    eventually(lambda: monotonic() > log_levels._look_at, "it is time to look")
    assert log_levels.version() == after


def test_levels_that_were_not_set_do_not_travel():
    logging.getLogger("levelled").setLevel(logging.ERROR)
    logging.getLogger(NAME)
    disable, levels = log_levels.current()
    assert (disable, levels["levelled"]) == (0, (logging.ERROR, False))
    assert NAME not in levels
    assert "" in levels


def test_only_what_differs_is_applied():
    first = (0, {"": (logging.root.level, False), "levelled": (10, False)})
    log_levels.apply(first, None)
    assert logging.getLogger("levelled").level == 10
    logging.getLogger("levelled").setLevel(40)  # by a task
    log_levels.apply((0, {**first[1], NAME: (20, True)}), first)
    assert logging.getLogger("levelled").level == 40
    assert (logging.getLogger(NAME).level, logging.getLogger(NAME).disabled) == (20, True)
    log_levels.apply((30, first[1]), (0, {**first[1], NAME: (20, True)}))
    assert (logging.getLogger(NAME).level, logging.getLogger(NAME).disabled) == (0, False)
    assert logging.root.manager.disable == 30


def test_a_logger_of_an_own_class_that_fails_disturbs_nobody():
    class Odd(logging.Logger):
        level = property(lambda _self: 1 / 0, lambda _self, _level: None)
        handlers = property(lambda _self: 1 / 0, lambda _self, _handlers: None)

    manager = logging.root.manager
    manager.loggerDict["levelled.odd"] = Odd("levelled.odd")
    try:
        assert "levelled.odd" not in log_levels.current()[1]
        log_levels.is_configured()
    finally:
        del manager.loggerDict["levelled.odd"]


def test_a_program_has_set_up_logging_when_a_logger_has_a_handler_that_writes():
    done = run_python(
        """
        import logging, concurrent.futures.process
        from pidfdpool.process import log_levels
        logging.getLogger("lib").addHandler(logging.NullHandler())
        print(log_levels.is_configured())
        logging.getLogger("app").addHandler(logging.StreamHandler())
        print(log_levels.is_configured())
        """
    )
    assert (done.stdout.split(), done.stderr) == (["False", "True"], "")
