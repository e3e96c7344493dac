"""What a worker sends of a record or a warning, and what it leaves to its own handlers. Each test is a process."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import logging
import os
import pickle
import sys
import threading
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
        record.created = "no number"
        logging.getLogger(NAME).handle(record)
        assert sent == [], "not even where it comes from is known"

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


# ---- levels, and what sets up logging ----------------------------------------------------------------------------


def test_the_hosts_levels_are_applied_and_later_ones_too():
    def look(sent, forwarding):
        log = logging.getLogger(NAME)
        assert (logging.root.level, log.level) == (20, 10)
        log.debug("one")
        assert len(sent) == 1
        forwarding.set_levels(pickle.dumps((0, {"": (20, False)})))
        assert log.level == logging.NOTSET
        log.debug("two")
        assert len(sent) == 1
        logging.root.setLevel(5)
        forwarding.set_levels(pickle.dumps((0, {"": (20, False), "other": (40, True)})))
        assert logging.root.level == 5, "what this process has changed stays"
        assert (logging.getLogger("other").level, logging.getLogger("other").disabled) == (40, True)

    in_worker(look, levels=(0, {"": (20, False), NAME: (10, False)}))


def test_a_loggers_class_that_refuses_levels_ends_nothing():
    def refuse(_logger, level):
        if level == 13:
            raise RuntimeError("refused")

    refusing = type("Refusing", (logging.Logger,), {"setLevel": refuse})

    def prepare():
        logging.setLoggerClass(refusing)

    def look(_, forwarding):
        forwarding.set_levels(pickle.dumps((0, {"never.made": (13, False)})))
        assert forwarding._applied == (0, {"never.made": (13, False)})

    in_worker(look, prepare=prepare)


def test_levels_that_come_before_logging_is_loaded_are_applied_when_it_is():
    def worker():
        forwarding = log_forwarding.Forwarding(SETTINGS, lambda _: None)
        forwarding.set_levels(pickle.dumps((0, {NAME: (17, False)})))
        assert logging.getLogger(NAME).level == logging.NOTSET
        forwarding.take_over_logging(logging)
        assert logging.getLogger(NAME).level == 17

    assert in_forked_child(worker) == "ok"


def test_logging_that_is_not_loaded_yet_is_taken_over_when_it_is(tmp_path):
    def worker():
        sent = []
        del sys.modules["logging"]
        log_forwarding.install((True, 0, None, (0, {})), sent.append)
        assert sent == []
        import logging as loaded

        assert loaded is not logging
        loaded.getLogger(NAME).warning("one")
        assert len(sent) == 1
        assert "multiprocessing" not in str(sent[0])

    assert in_forked_child(worker) == "ok"


def test_the_functions_of_the_module_make_no_handler_where_the_host_has_the_records():
    def look(sent, forwarding):
        basic = logging.basicConfig
        assert basic.__doc__.lstrip().startswith("Do basic configuration")
        logging.warning("one")
        assert (len(sent), logging.root.handlers) == (1, [])
        own = Handler()
        basic(handlers=[own], level=3)
        assert (logging.root.handlers, logging.root.level) == ([own], 3), "a program may ask for it"
        logging.root.removeHandler(own)
        forwarding.stop()
        with open(os.devnull, "w") as sys.stderr:
            logging.warning("two")
        assert (len(sent), len(logging.root.handlers)) == (1, 1)

    in_worker(look)


def test_where_the_root_logger_is_not_forwarded_they_make_a_handler_as_ever():
    def look(sent, _):
        with open(os.devnull, "w") as sys.stderr:
            logging.warning("one")
        assert (sent, len(logging.root.handlers)) == ([], 1)

    in_worker(look, names=("a",))


# ---- warnings ------------------------------------------------------------------------------------------------------


class Own(UserWarning):
    pass


def test_all_that_the_host_needs_of_a_warning_is_sent():
    def look(sent, _):
        warnings.simplefilter("always")
        line = inspect.currentframe().f_lineno + 1
        warnings.warn("odd", Own, stacklevel=1)
        (fields,) = sent
        assert fields.pop("created") > 1e9
        assert fields == {
            "text": "odd", "filename": __file__, "lineno": line, "module": __name__, "line": None,
            "category": [[__name__, "Own"], ["builtins", "UserWarning"], ["builtins", "Warning"]],
            "process": os.getpid(), "task": 7,
        }  # fmt: skip
        warnings.showwarning(Own("told"), Own, "elsewhere.py", 3, None, "its line")
        assert (sent[1]["text"], sent[1]["module"], sent[1]["line"]) == ("told", None, "its line")
        line = inspect.currentframe().f_lineno + 1
        warnings.showwarning(Own("here"), Own, __file__, line)
        warnings.showwarning(Own("not here"), Own, __file__, 1)
        assert [fields["module"] for fields in sent[2:]] == [__name__, None]
        warnings.showwarning(Own("told"), Own, "elsewhere.py", 3, sys.stderr)
        assert sent[4][2:5] == ("elsewhere.py", 3, sys.stderr), "who names a file has it shown there"

    in_worker(look)


@pytest.mark.parametrize(("least", "names", "taken"), [(30, None, True), (31, None, False), (0, ("a",), False)])
def test_warnings_are_sent_as_records_of_their_logger_would_be(least, names, taken):
    def look(sent, _):
        warnings.simplefilter("always")
        warnings.warn("odd", stacklevel=1)
        assert isinstance(sent[0], dict) is taken

    in_worker(look, least=least, names=names)


def test_kinds_that_python_ignores_by_itself_are_sent_for_the_host_to_decide():
    def prepare():
        warnings.resetwarnings()
        for kind in reversed(log_forwarding._IGNORED):
            warnings.simplefilter("ignore", kind)
        warnings.filterwarnings("error", category=Own)

    def look(sent, _):
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        assert [fields["text"] for fields in sent] == ["old"]
        with contextlib.suppress(Own):
            warnings.warn("raised", Own, stacklevel=1)
        assert len(sent) == 1
        assert [each[0] for each in warnings.filters] == ["error", "default"]

    in_worker(look, prepare=prepare)


def test_a_program_that_ignores_some_kinds_itself_is_left_alone():
    def prepare():
        warnings.resetwarnings()
        warnings.simplefilter("ignore", DeprecationWarning)

    def look(sent, _):
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        assert sent == []
        assert len(warnings.filters) == 1

    in_worker(look, prepare=prepare)


def test_a_module_whose_name_is_no_text_has_none():
    spec = importlib.util.spec_from_loader("odd", None)
    module = importlib.util.module_from_spec(spec)
    module.__dict__.update(__name__=5, look=lambda: log_forwarding._module_at("odd.py", 2))
    exec(compile("def deeper():\n return (lambda: look())()\nfound = deeper()", "odd.py", "exec"), module.__dict__)
    assert module.found is None
