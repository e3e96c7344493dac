"""What a worker does with what its tasks log: nothing is raised in a task, and nothing else of it changes."""

from __future__ import annotations

import logging
import sys
import warnings

import pytest

from pidfdpool import PidfdPoolExecutor
from tests.conditions import run_python

NAME = "forwarding.worker"


@pytest.fixture
def records():
    """Return a list that gets the records of the logger."""
    handler, logger, found = logging.Handler(), logging.getLogger(NAME), []
    handler.emit = found.append
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


class Unspeakable:
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


def log_badly():
    log = logging.getLogger(NAME)
    log.info("%d things", "no number")
    log.info("%s %s", *[1])
    log.info(Unspeakable())
    log.info("with %s", Unspeakable())
    log.info("fine", extra={"odd": Unspeakable(), "lambda": lambda: 0, "deep": {"a": [Unspeakable()]}})
    log.info("x" * 1_000_000)
    log.info(12345)
    return "went on"


def test_a_record_that_cannot_be_sent_is_told_and_never_raised(way, records):
    with PidfdPoolExecutor(1, mp_context=way, forward_logs=True) as pool:
        assert pool.submit(log_badly).result() == "went on"
        assert pool.stats().crashes == 0
    texts = [record.getMessage() for record in records]
    assert len(texts) == 7
    assert "cannot be formatted (TypeError: " in texts[0]
    assert "'%d things'" in texts[0]
    assert all("cannot be formatted" in text for text in texts[1:4])
    assert "Unspeakable, whose repr() fails" in texts[2]
    assert texts[4] == "fine"
    assert "whose repr() fails" in records[4].odd
    assert "<function" in getattr(records[4], "lambda")
    assert texts[5].endswith("... (934464 more characters)")
    assert texts[6] == "12345"


def log_an_error():
    try:
        raise ValueError("deep")
    except ValueError:
        logging.getLogger(NAME).exception("it failed", stack_info=True)


def test_the_text_of_an_exception_and_of_the_stack_travels(way, records):
    with PidfdPoolExecutor(1, mp_context=way, forward_logs=True) as pool:
        pool.submit(log_an_error).result()
    [record] = records
    assert record.exc_text.startswith("Traceback (most recent call last):")
    assert record.exc_text.endswith("ValueError: deep")
    assert "log_an_error" in record.stack_info
    shown = logging.Formatter().format(record)
    assert shown.startswith("it failed\nTraceback")


def log_in_initializer():
    logging.getLogger(NAME).info("being set up")


def test_an_initializer_logs_outside_of_a_task(way, records):
    with PidfdPoolExecutor(1, mp_context=way, initializer=log_in_initializer, forward_logs=True) as pool:
        pool.submit(int).result()
    [record] = records
    assert (record.getMessage(), record.task, record.function) == ("being set up", None, None)
    assert record.processName == "PidfdPoolWorker-0"


def own_attributes():
    logging.getLogger(NAME).info("mine", extra={"task": "clean up", "function": "f", "worker": "w"})


def test_attributes_of_the_program_win_over_those_of_the_pool(records):
    with PidfdPoolExecutor(1, forward_logs=True) as pool:
        pool.submit(own_attributes).result()
    assert [(one.task, one.function, one.worker) for one in records] == [("clean up", "f", "w")]


def catch_warnings():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("caught", stacklevel=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            warnings.warn("raised", stacklevel=1)
        except UserWarning as error:
            return [str(one.message) for one in caught], str(error)
    return None


@pytest.mark.filterwarnings("error")
def test_a_task_may_catch_its_warnings(way):
    with PidfdPoolExecutor(1, mp_context=way, forward_logs=True) as pool:
        assert pool.submit(catch_warnings).result() == (["caught"], "raised")


def test_records_of_a_forked_child_of_a_task_go_to_its_own_handlers():
    done = run_python(
        """
        import logging, multiprocessing, sys
        from pidfdpool import PidfdPoolExecutor
        from tests.worker.test_log_forwarding import fork_and_log
        logging.basicConfig(format="in host: %(message)s", stream=sys.stdout)
        with PidfdPoolExecutor(1, forward_logs=True) as pool:
            pool.submit(fork_and_log).result()
        """
    )
    assert (done.stdout.split("\n")[:-1], done.stderr.split("\n")[:-1]) == (["in host: task"], ["child"])


def fork_and_log():
    import multiprocessing

    child = multiprocessing.get_context("fork").Process(target=logging.getLogger(NAME).warning, args=("child",))
    child.start()
    child.join()
    logging.getLogger(NAME).warning("task")


def log_by_loguru():
    from loguru import logger

    class ToLogging(logging.Handler):
        def emit(self, record):
            logging.getLogger(NAME).handle(record)

    logger.remove()
    logger.add(ToLogging(), format="{message}")
    logger.bind(job=3).warning("by loguru {}", 5)


def test_loguru_through_logging(records):
    pytest.importorskip("loguru")
    with PidfdPoolExecutor(1, forward_logs=True) as pool:
        pool.submit(log_by_loguru).result()
    [record] = records
    assert (record.getMessage(), record.levelname, record.task) == ("by loguru 5", "WARNING", 1)


def log_by_structlog(wrapped):
    import structlog

    last = structlog.stdlib.ProcessorFormatter.wrap_for_formatter
    render = last if wrapped else structlog.processors.KeyValueRenderer(key_order=["event"])
    structlog.configure(
        processors=[structlog.stdlib.add_log_level, render],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    structlog.get_logger(NAME).warning("by structlog", n=5, odd=sys)


def test_structlog_through_logging(records):
    structlog = pytest.importorskip("structlog")
    with PidfdPoolExecutor(1, forward_logs=True) as pool:
        pool.submit(log_by_structlog, False).result()
        pool.submit(log_by_structlog, True).result()
    plain, wrapped = records
    assert plain.getMessage().startswith("event='by structlog'")
    assert (wrapped.msg["event"], wrapped.msg["n"], wrapped.msg["odd"]) == ("by structlog", 5, repr(sys))
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(sort_keys=True),
        ]
    )
    assert formatter.format(wrapped).startswith('{"event": "by structlog", "level": "warning", "n": 5')
