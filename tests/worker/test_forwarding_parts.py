"""What a worker sends of a record or a warning, and what it leaves to its own handlers. Each test is a process."""

from __future__ import annotations

import inspect
import logging
import os
import pickle
import threading
import time
import warnings

import pytest

from pidfdpool.transport import frame_rules, framing
from pidfdpool.worker import context, log_forwarding
from tests.conditions import in_forked_child

NAME = "forwarding.parts"
SETTINGS = (True, 0, None, (0, {}))


class Handler(logging.Handler):
    def __init__(self, level=0):
        super().__init__(level)
        self.records = []

    def emit(self, record):
        self.records.append(record)


def in_worker(look, always=True, least=0, names=None, levels=(0, {"": (30, False)}), prepare=lambda: None):
    """Call look(sent, forwarding) in a process whose logging was taken over. sent: the fields of each frame."""

    def worker():
        sent = []

        def post(pieces):
            (frame,) = framing.Decoder(frame_rules.FROM_WORKER).feed_data(b"".join(pieces))
            assert frame.kind == framing.LOG
            sent.append(pickle.loads(frame.buffers[0]) | {"task": frame.value})

        for one in list(logging._handlerList):
            logging.root.removeHandler(one())
        prepare()
        warnings.showwarning = lambda *told: sent.append(told)
        forwarding = log_forwarding.install((always, least, names, levels), post)
        context.enter(7, 1, None)
        look(sent, forwarding)

    assert in_forked_child(worker) == "ok"


def test_all_that_a_handler_of_the_hosts_needs_of_a_record_is_sent():
    def look(sent, _):
        threading.current_thread().name = "a thread"
        line = inspect.currentframe().f_lineno + 1
        logging.getLogger(NAME).error("one %s", "two", extra={"odd": 3}, stack_info=True)
        (fields,) = sent
        assert fields["stack_info"].startswith("Stack (most recent call last)")
        assert fields["created"] > 1e9
        del fields["created"], fields["stack_info"]
        assert fields == {
            "logger": NAME, "name": NAME, "levelno": 40, "levelname": "ERROR", "msg": "one two", "exc_text": None,
            "pathname": __file__, "lineno": line, "funcName": "look", "thread": threading.get_ident(),
            "threadName": "a thread", "taskName": None, "process": os.getpid(), "extra": {"odd": 3}, "task": 7,
        }  # fmt: skip

    in_worker(look)


def test_what_is_unusual_of_a_record_is_sent_as_it_is():
    def look(sent, _):
        record = logging.LogRecord("__mp_main__.x", 30, "p", 5, {"event": "a"}, None, None)
        record.lineno = record.funcName = record.threadName = None
        logging.getLogger("__mp_main__").handle(record)
        fields = sent.pop()
        assert (fields["name"], fields["logger"]) == ("__main__.x", "__main__")
        assert (fields["msg"], fields["lineno"], fields["stack_info"]) == ({"event": "a"}, 0, None)
        assert (fields["funcName"], fields["threadName"]) == (None, None)
        logging.getLogger("__mp_main__s").warning({"event": "%(a)s"}, {"a": 1})
        assert (sent[-1]["name"], sent.pop()["msg"]) == ("__mp_main__s", "{'event': '1'}")
        logging.getLogger(NAME).warning(5)
        assert sent.pop()["msg"] == "5"
        context.leave()
        logging.getLogger(NAME).warning("outside")
        assert sent.pop()["task"] == 0

    in_worker(look)


class Text(str):
    """A text of a class of the user's, which travels as what it is."""


def test_texts_of_a_record_are_texts_whatever_the_program_has_set():
    names = "levelname", "stack_info", "pathname", "funcName", "threadName"

    def look(sent, _):
        record = logging.LogRecord(NAME, 30, "p", 5, "m", None, None)
        for number, name in enumerate(names):
            setattr(record, name, number or Text("own"))
        logging.getLogger(NAME).handle(record)
        assert [sent[0][name] for name in names] == ["own", "1", "2", "3", "4"]

    in_worker(look)


def test_a_record_that_lacks_what_others_have_is_sent_as_well():
    """`logging.makeLogRecord` makes such records of dictionaries, and a program may set and delete attributes."""

    def look(sent, _):
        handle = logging.getLogger(NAME).handle
        handle(logging.makeLogRecord({"msg": "bare", "levelno": 30}))
        fields = sent.pop()
        assert (fields["logger"], fields["name"], fields["msg"], fields["funcName"]) == (NAME, "None", "bare", None)
        for name in ("name", "levelname", "pathname", "lineno", "funcName", "created", "thread", "threadName"):
            record = logging.makeLogRecord({"msg": name, "levelno": 30})
            delattr(record, name)
            handle(record)
            assert sent.pop()["msg"] == name
        assert sent == []

    in_worker(look)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("name", 5, "5"),
        ("lineno", "12", 0),
        ("lineno", True, 1),
        ("thread", "a thread", None),
        ("threadName", 7, "7"),
        ("created", 12, 12),
        ("created", -1.5, -1.5),
    ],
)
def test_an_attribute_of_another_type_becomes_what_the_host_can_have(name, value, expected):
    def look(sent, _):
        logging.getLogger(NAME).handle(logging.makeLogRecord({"msg": "odd", "levelno": 30, name: value}))
        assert sent[0][name] == expected

    in_worker(look)


@pytest.mark.parametrize("value", ["now", None, float("inf"), float("-inf"), float("nan"), 10**30, -1e15])
def test_a_time_that_cannot_be_is_that_of_now(value):
    def look(sent, _):
        before = time.time()
        logging.getLogger(NAME).handle(logging.makeLogRecord({"msg": "odd", "levelno": 30, "created": value}))
        assert before <= sent[0]["created"] <= time.time()

    in_worker(look)


def test_the_text_of_an_error_is_made_once_and_nothing_else_is():
    def look(sent, _):
        log = logging.getLogger(NAME)
        try:
            raise LookupError("deep")
        except LookupError:
            log.exception("failed")
            log.warning("no error")
        assert sent[0]["exc_text"].startswith("Traceback")
        assert sent[0]["exc_text"].endswith("LookupError: deep")
        assert sent[1]["exc_text"] is None
        record = logging.LogRecord(NAME, 30, "p", 5, "m", None, (LookupError, LookupError("other"), None))
        record.exc_text = "made before"
        log.handle(record)
        assert sent[2]["exc_text"] == "made before"
        record.exc_text, record.exc_info = "", None
        log.handle(record)
        assert sent[3]["exc_text"] is None

    in_worker(look)


def test_a_record_that_cannot_be_formatted_is_told_and_nothing_is_raised():
    def look(sent, _):
        logging.getLogger(NAME).warning("%d", "x", extra={"odd": 1})
        fields = sent.pop()
        assert fields["msg"].startswith("a record of this worker cannot be formatted (TypeError: ")
        assert fields["msg"].endswith(": '%d'")
        assert (fields["exc_text"], fields["extra"], fields["levelno"]) == (None, {}, 30)
        record = logging.LogRecord(NAME, 30, "p", 5, "m", None, None)
        record.levelno = float("inf")
        logging.getLogger(NAME).handle(record)
        assert sent == [], "there is no such level"

    in_worker(look)


# ---- which are sent --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [29, 30, 31])
def test_records_from_the_least_level_on_are_sent_and_others_left_to_the_workers_handlers(level):
    def look(sent, _):
        own = Handler()
        logging.root.addHandler(own)
        logging.getLogger(NAME).log(level, "m")
        assert (len(sent), len(own.records)) == (int(level >= 30), 1), "one that the task has made gets all"

    in_worker(look, least=30, levels=(0, {"": (1, False)}))


@pytest.mark.parametrize(
    ("name", "covered"),
    [("a", True), ("a.b", True), ("ab", False), ("b.a", False), ("c.d", True), ("c", False), ("c.d.e", True)],
)
def test_only_loggers_that_were_named_and_those_below_are_covered(name, covered):
    def look(sent, _):
        for _ in range(2):
            logging.getLogger(name).warning("m")
        assert len(sent) == (2 if covered else 0)

    in_worker(look, names=("a", "c.d"))


def test_whether_a_logger_is_covered_is_looked_up_once():
    looks = []

    class Names(tuple):
        def __iter__(self):
            looks.append(1)
            return super().__iter__()

    def look(sent, _):
        looks.clear()
        for _ in range(3):
            logging.getLogger("a.b").warning("m")
            logging.getLogger("b").warning("m")
        assert (len(sent), len(looks)) == (3, 2)

    in_worker(look, names=Names(["a"]))


def test_handlers_that_were_there_before_get_nothing_and_those_of_the_task_what_they_want():
    inherited = Handler()

    def prepare():
        logging.root.addHandler(inherited)

    def look(sent, _):
        own, choosy, none = Handler(), Handler(40), logging.NullHandler()
        log = logging.getLogger(NAME)
        log.addHandler(none)
        log.addHandler(choosy)
        logging.getLogger("forwarding").addHandler(own)
        log.warning("one")
        assert (len(sent), len(inherited.records), len(own.records), len(choosy.records)) == (1, 0, 1, 0)
        log.log(40, "two")
        assert (len(sent), len(own.records), len(choosy.records)) == (2, 2, 1)
        log.propagate = False
        log.error("three")
        assert (len(sent), len(own.records), len(choosy.records)) == (3, 2, 2)

    in_worker(look, prepare=prepare)


def test_unless_it_is_asked_for_what_a_handler_of_the_worker_gets_is_not_sent():
    kept = Handler()

    def look(sent, _):
        log = logging.getLogger(NAME)
        log.warning("one")
        assert len(sent) == 1
        log.addHandler(logging.NullHandler())
        log.warning("two")
        assert len(sent) == 2, "such a handler handles nothing"
        logging.root.addHandler(kept)
        log.warning("three")
        assert (len(sent), len(kept.records)) == (2, 1)
        kept.setLevel(50)
        log.warning("four")
        assert (len(sent), len(kept.records)) == (2, 1), "the worker looks after itself"

    in_worker(look, always=False)


def test_by_default_handlers_that_were_there_before_are_the_workers():
    inherited = Handler()

    def look(sent, _):
        logging.getLogger(NAME).warning("one")
        assert (len(sent), len(inherited.records)) == (0, 1)

    in_worker(look, always=False, prepare=lambda: logging.root.addHandler(inherited))


def test_when_it_is_stopped_all_goes_to_the_handlers_of_this_process():
    inherited = Handler()

    def look(sent, forwarding):
        forwarding.stop()
        logging.getLogger(NAME).warning("one")
        warnings.warn("two", stacklevel=1)
        assert [record.getMessage() for record in inherited.records] == ["one"]
        ((text, *_),) = sent
        assert str(text) == "two", "it was shown"

    in_worker(look, prepare=lambda: logging.root.addHandler(inherited))
