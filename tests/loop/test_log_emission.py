"""One record, or one warning, of a worker as the host's own loggers and filters get it. Without workers."""

from __future__ import annotations

import logging
import re
import sys
import time
import types
import warnings

import pytest

from pidfdpool.loop import log_emission
from pidfdpool.loop.log_emission import emit
from pidfdpool.serialization import log_records

NAME = "emission.app"
CREATED = 1_700_000_000.25


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def kept():
    """Give what the loggers below "emission" and that of warnings get."""
    handler = Kept()
    loggers = [logging.getLogger("emission"), logging.getLogger("py.warnings")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    yield handler.records
    for logger in loggers:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


RECORD = {
    "logger": NAME, "name": "its.own", "levelno": logging.WARNING, "levelname": "WARNING", "msg": "50% done",
    "exc_text": "Traceback", "stack_info": "Stack", "pathname": "/app/jobs.main.py", "lineno": 7, "funcName": "work",
    "created": CREATED, "thread": 11, "threadName": "T", "taskName": "a task", "process": 4711, "extra": {},
}  # fmt: skip
WARNING = {
    "text": "old", "category": [["builtins", "DeprecationWarning"], ["builtins", "Warning"]], "filename": "/app/a.py",
    "lineno": 7, "module": "app.a", "line": "    old()", "created": CREATED, "process": 4711,
}  # fmt: skip


def emit_record(slot=3, pid=99, task=5, function="jobs.work", *, options=(), **changes):
    emit(log_records.dumps({**RECORD, **changes}), slot, pid, task, function, *options)


# ---- records -----------------------------------------------------------------------------------------------------


def test_a_record_has_what_it_had_and_where_it_comes_from(kept):
    emit_record()
    [record] = kept
    same = {name: getattr(record, name) for name in RECORD if name not in ("logger", "extra", "process")}
    assert same == {name: RECORD[name] for name in same}
    assert (record.process, record.processName, record.worker) == (99, "PidfdPoolWorker-3", 3)
    assert (record.task, record.function) == (5, "jobs.work")
    assert (record.filename, record.module) == ("jobs.main.py", "jobs.main")
    assert (record.getMessage(), record.args, record.exc_info) == ("50% done", None, None)
    assert not hasattr(record, "logger")
    assert not hasattr(record, "extra")


def test_its_times_are_those_of_when_it_was_made(kept):
    now = time.time()
    emit_record()
    emit_record(created=now)
    assert kept[0].msecs == 250.0
    here = logging.makeLogRecord({})
    assert kept[1].relativeCreated == pytest.approx(here.relativeCreated, abs=5000), "since this program began"
    assert kept[1].relativeCreated - kept[0].relativeCreated == pytest.approx((now - CREATED) * 1000, abs=1)


def test_of_a_worker_whose_pid_is_not_known_its_own_word_counts(kept):
    emit_record(pid=None, task=None, function=None)
    [record] = kept
    assert (record.process, record.task, record.function) == (4711, None, None)


def test_what_has_logged_may_be_something_else_than_a_worker(kept, caplog):
    emit_record(options=("node", "PidfdPoolNode"))
    [record] = kept
    assert (record.processName, record.node, hasattr(record, "worker")) == ("PidfdPoolNode-3", 3, False)
    emit(b"nonsense", 4, 99, None, None, "node", "PidfdPoolNode")
    [complaint] = [record for record in caplog.records if record.name != "its.own"]
    assert complaint.getMessage().startswith("a log record of node 4 cannot be read: it is no plain data")
    assert (complaint.name, complaint.levelno) == ("pidfdpool.logs", logging.WARNING)


def test_attributes_of_its_own_are_there_but_do_not_replace_those_that_every_record_has(kept):
    emit_record(extra={"tags": ["a"], "levelno": 50, "msecs": 7.0, "task": "its own"})
    [record] = kept
    assert (record.tags, record.levelno, record.msecs) == (["a"], logging.WARNING, 250.0)
    assert record.task == "its own"


def test_the_level_of_the_logger_that_was_to_handle_it_decides(kept):
    logging.getLogger(NAME).setLevel(logging.ERROR)
    try:
        emit_record()
        assert kept == []
        emit_record(levelno=logging.ERROR)
        emit_record(logger="emission.other")
    finally:
        logging.getLogger(NAME).setLevel(logging.NOTSET)
    assert [record.levelno for record in kept] == [logging.ERROR, logging.WARNING]


@pytest.mark.parametrize(("level", "name", "expected"), [(30, "WARN", "WARNING"), (33, "NOTICE", "NOTICE")])
def test_a_level_has_this_programs_name_if_it_has_one_and_else_the_workers(kept, level, name, expected):
    emit_record(levelno=level, levelname=name)
    assert kept[0].levelname == expected


def test_records_are_made_by_this_programs_factory(kept):
    class Own(logging.LogRecord):
        pass

    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(Own)
    try:
        emit_record()
    finally:
        logging.setLogRecordFactory(before)
    assert [type(record) for record in kept] == [Own]


@pytest.fixture
def factory():
    """Give what sets the program's record factory for this test."""
    before = logging.getLogRecordFactory()
    yield logging.setLogRecordFactory
    logging.setLogRecordFactory(before)


def test_a_factory_is_told_what_it_is_told_of_a_record_of_this_program(kept, factory):
    """Guards: `logging.makeLogRecord` tells it nothing, so one that looks at the name failed, and without a word."""

    def make(name, level, path, lineno, msg, args, exc_info, func=None, sinfo=None, **other):
        record = logging.LogRecord(name, level, path, lineno, msg.replace("50", "XX"), args, exc_info, func, sinfo)
        record.short = name.rpartition(".")[2], level, path, lineno, func, sinfo, other
        return record

    factory(make)
    emit_record(extra={"short_too": 1})
    [record] = kept
    place = [RECORD[name] for name in ("levelno", "pathname", "lineno", "funcName", "stack_info")]
    assert list(record.short) == [RECORD["name"].rpartition(".")[2], *place, {}]
    assert (record.getMessage(), record.args, record.short_too) == ("XX% done", None, 1)


def test_a_record_that_the_factory_cannot_make_is_made_without_it(kept, factory):
    factory(lambda *_: {}["missing"])
    emit_record()
    assert [(record.getMessage(), record.worker) for record in kept] == [("50% done", 3)]


def test_records_are_made_by_the_class_of_the_logger(kept):
    class Named(logging.Logger):
        def makeRecord(self, *args, **options):  # noqa: N802
            record = super().makeRecord(*args, **options)
            record.made_by = self.name
            return record

    logger = logging.getLogger(NAME)
    logger.__class__ = Named
    try:
        emit_record()
    finally:
        logger.__class__ = logging.Logger
    assert [record.made_by for record in kept] == [NAME]


# ---- warnings ----------------------------------------------------------------------------------------------------


def warn(slot=3, pid=99, task=5, function="jobs.work", **changes):
    emit(log_records.dumps({**WARNING, **changes}), slot, pid, task, function)


@pytest.fixture
def filters():
    """Give the warnings that are shown, with no filter, and nothing shown before."""
    log_emission._registry.clear()
    log_emission._shown.clear()
    with warnings.catch_warnings(record=True) as shown:
        warnings.resetwarnings()
        yield shown
    log_emission._registry.clear()
    log_emission._shown.clear()


@pytest.fixture
def captured(filters, kept):
    """Give what the logger of warnings gets, as in a program that has them logged."""
    logging.captureWarnings(True)
    yield kept
    logging.captureWarnings(False)


def test_a_warning_is_shown_as_the_workers_own_and_once_for_its_place(filters, kept):
    for _ in range(2):
        warn()
    warn(lineno=8)
    assert [(str(each.message), each.category, each.filename, each.lineno) for each in filters] == [
        ("old", DeprecationWarning, "/app/a.py", line) for line in (7, 8)
    ]
    assert kept == [], "nobody has asked for them to be logged"


def test_filters_of_this_program_decide(filters):
    warnings.filterwarnings("ignore", module="app.b")
    warn(module="app.b")
    assert filters == []
    warnings.simplefilter("error")
    warn()
    assert [str(each.message) for each in filters] == ["old"], "nobody here has called what warns"


@pytest.mark.parametrize(
    ("module", "filename", "matches"),
    [("app.c", "/x.py", "app.c"), (None, "/app/c.py", "/app/c"), (None, "", "<unknown>"), (None, "c.pyx", "c.pyx")],
)
def test_a_module_that_is_not_known_is_told_from_its_file(filters, module, filename, matches):
    warnings.filterwarnings("ignore", module=f"{re.escape(matches)}$")
    warn(module=module, filename=filename)
    warn(module="app.elsewhere", filename="/elsewhere.py")
    assert [each.filename for each in filters] == ["/elsewhere.py"]


class Odd(UserWarning):
    def __init__(self, one, two):
        super().__init__(one, two)


class Renamed(UserWarning):
    def __init__(self, text):
        super().__init__(f"renamed: {text}")


class Silent(UserWarning):
    def __str__(self):
        return f"{self.number}"


@pytest.mark.parametrize("action", ["default", "error"])
@pytest.mark.parametrize("kind", [Odd, Renamed])
def test_a_warning_that_is_made_in_another_way_reads_as_it_did(filters, kind, action):
    warnings.simplefilter(action)
    warn(category=[[__name__, kind.__name__]])
    assert [(str(each.message), each.category) for each in filters] == [("old", kind)]
    warnings.simplefilter("ignore", kind)
    warn(category=[[__name__, kind.__name__]], lineno=99)
    assert len(filters) == 1


@pytest.mark.parametrize("action", ["default", "error"])
def test_a_warning_whose_text_only_its_constructor_makes_is_shown_with_its_name(filters, action):
    warnings.simplefilter(action)
    warn(category=[[__name__, "Silent"]])
    assert [(str(each.message), each.category) for each in filters] == [("Silent: old", UserWarning)]


def test_the_nearest_class_that_this_program_knows_is_taken(filters, monkeypatch):
    class Outer:
        class Inner(UserWarning):
            pass

    monkeypatch.setitem(sys.modules, "known_module", types.SimpleNamespace(Outer=Outer, NOT=5, Plain=Outer))
    for names, expected in (
        ([["known_module", "Outer.Inner"], ["builtins", "UserWarning"]], Outer.Inner),
        ([["missing_module", "Outer"], ["builtins", "FutureWarning"]], FutureWarning),
        ([["known_module", "NOT"], ["known_module", "Plain"], ["builtins", "BytesWarning"]], BytesWarning),
        ([["known_module", "Outer.None.At.All"]], UserWarning),
        ([["builtins", "ValueError"]], UserWarning),
        ([], UserWarning),
    ):
        assert log_emission._category(names) is expected


def test_where_warnings_are_logged_those_of_workers_are_too(captured):
    warn()
    [record] = captured
    assert record.getMessage() == "/app/a.py:7: DeprecationWarning: old\n  old()\n"
    assert (record.name, record.levelno, record.levelname) == ("py.warnings", logging.WARNING, "WARNING")
    assert (record.pathname, record.lineno, record.created, record.process) == ("/app/a.py", 7, CREATED, 99)
    assert (record.worker, record.task, record.function) == (3, 5, "jobs.work")
    assert record.processName == "PidfdPoolWorker-3"
    assert (record.funcName, record.threadName, record.exc_text) == (None, None, None)


def test_where_nobody_wants_them_logged_they_are_not(captured):
    logging.getLogger("py.warnings").setLevel(logging.ERROR)
    warn()
    assert captured == []


FILES, LINES, TEXTS = ("/a.py", "/b.py"), (1, 2), ("old", "older")


@pytest.mark.parametrize(
    ("action", "shown"),
    [("ignore", 0), ("always", 16), ("all", 16), ("default", 8), ("error", 8), ("module", 4), ("once", 2)],
)
def test_logged_ones_come_as_often_as_the_filters_say(captured, action, shown):
    warnings.filters.insert(0, (action, None, Warning, None, 0))
    for _ in range(2):
        for file in FILES:
            for line in LINES:
                for text in TEXTS:
                    warn(filename=file, lineno=line, text=text)
    assert len(captured) == shown


@pytest.mark.parametrize("default", ["ignore", "always"])
def test_without_a_filter_that_matches_the_default_counts(captured, monkeypatch, default):
    monkeypatch.setattr(warnings, "defaultaction", default)
    for _ in range(2):
        warn()
    assert len(captured) == (2 if default == "always" else 0)


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ((None, Warning, None, 0), True),
        (("old", Warning, None, 0), True),
        (("ol", Warning, None, 0), False),
        ((re.compile("ol"), DeprecationWarning, re.compile("app"), 7), True),
        ((re.compile("x"), Warning, None, 0), False),
        ((None, UserWarning, None, 0), False),
        ((None, Warning, "app.b", 0), False),
        ((None, Warning, "app.a", 0), True),
        ((None, Warning, None, 8), False),
    ],
)
def test_a_filter_counts_if_all_of_it_matches(captured, pattern, matches):
    warnings.filters[:] = [("ignore", *pattern), ("always", None, Warning, None, 0)]
    warn()
    assert len(captured) == (not matches)


@pytest.mark.parametrize("logged", [True, False])
def test_places_that_have_warned_are_forgotten_when_they_are_too_many(filters, kept, monkeypatch, logged):
    """A warning that is shown twice is better than memory that grows for ever."""
    monkeypatch.setattr(log_emission, "_MOST_PLACES", 10)
    if logged:
        logging.captureWarnings(True)
    try:
        for line in range(1, 96):
            warn(lineno=line)
            assert len(log_emission._registry) + len(log_emission._shown) <= 13
        warn(lineno=95)
    finally:
        logging.captureWarnings(False)
    assert len(kept if logged else filters) == 95
