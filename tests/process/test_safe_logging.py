"""Records never raise: neither what a handler of the host's raises, nor what its filter or the message does."""

from __future__ import annotations

import logging

import pytest

from pidfdpool.process import safe_logging


@pytest.mark.parametrize("error", [ValueError, OSError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["handler", "filter"])
def test_what_the_hosts_logging_raises_is_dropped(monkeypatch, error, where):
    def fail(_record):
        raise error

    logger = logging.Logger("test")
    handler = logging.NullHandler()
    logger.addHandler(handler)
    if where == "filter":
        logger.addFilter(fail)
    else:
        monkeypatch.setattr(handler, "handle", fail)
    safe_logging.log(logger, logging.ERROR, "message %d", 1)


def test_a_record_names_the_line_that_has_logged_it(caplog):
    logger = logging.getLogger("tests.safe_logging")
    safe_logging.log(logger, logging.ERROR, "message %d", 1)
    assert [(record.funcName, record.getMessage()) for record in caplog.records] == [
        ("test_a_record_names_the_line_that_has_logged_it", "message 1")
    ]
