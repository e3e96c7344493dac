"""What a worker does with the host's levels, with what sets up logging, and with warnings. Each test is a process."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import logging
import os
import pickle
import sys
import warnings

import pytest

from pidfdpool.worker import log_forwarding
from tests.conditions import in_forked_child
from tests.worker.test_forwarding_parts import NAME, SETTINGS, Handler, in_worker


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
