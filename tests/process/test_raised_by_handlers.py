"""Whether an exception is a signal handler's or that of the code that it has interrupted."""

from __future__ import annotations

import signal
import threading

import pytest

from pidfdpool.process import interruptible
from pidfdpool.process.interruptible import is_exit_request_of_handler, is_of_handler


class Ended(Exception):
    """What a timer of the host's raises."""


class Exit(BaseException):
    """Asks to exit."""


def raising(error):
    def handler(_number, _frame):
        raise error

    return handler


class Handlers:
    def __init__(self, error):
        self.error = error

    def method(self, number, frame):
        raise self.error

    def variadic(self, *both):
        raise self.error

    def deep(self, number, frame):
        self.further()

    def further(self):
        raise self.error


@pytest.fixture
def on_alarm():
    """Return a function that sets a handler of SIGALRM, for the duration of the test."""
    before = signal.getsignal(signal.SIGALRM)
    yield lambda handler: signal.signal(signal.SIGALRM, handler)
    signal.signal(signal.SIGALRM, before)


def interrupted():
    """Return the exception that comes out of code in which SIGALRM is delivered."""
    try:
        signal.raise_signal(signal.SIGALRM)
        for _ in range(1000):
            pass
    except BaseException as error:
        return error
    raise AssertionError("there was no exception")


def raised(error):
    """Return an exception that code raises by itself, with its traceback."""
    frame = "a variable of this name"

    def inner(both=(1, 2)):
        raise error

    try:
        inner()
    except BaseException as caught:
        assert frame
        return caught


@pytest.mark.parametrize("how", ["method", "variadic", "deep"])
@pytest.mark.parametrize("error", [Ended, Exit, SystemExit, KeyboardInterrupt])
def test_what_a_handler_raises_is_known_as_its_own_however_it_takes_its_arguments(on_alarm, how, error):
    on_alarm(getattr(Handlers(error()), how))
    found = interrupted()
    assert is_of_handler(found)
    assert is_exit_request_of_handler(found) is not issubclass(error, Exception)


@pytest.mark.parametrize("error", [Ended, Exit, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("handled", [True, False])
def test_what_code_raises_by_itself_is_its_own(on_alarm, monkeypatch, error, handled):
    monkeypatch.setattr(interruptible, "_handler_of", lambda number: handler if number == signal.SIGALRM else 0)
    handler = raising(Ended()) if handled else 0
    found = raised(error())
    assert not is_of_handler(found)
    assert not is_exit_request_of_handler(found)


def test_an_ordinary_exception_cannot_be_a_handlers_where_none_is_called(on_alarm, monkeypatch):
    """And then its traceback, which may be long, is not looked at."""
    on_alarm(raising(Ended()))
    found = interrupted()
    monkeypatch.setattr(interruptible, "_handler_of", lambda _number: 0)
    assert not is_of_handler(found)


def test_another_thread_runs_no_handlers_and_so_nothing_there_is_theirs(on_alarm):
    on_alarm(raising(Ended()))
    ordinary = interrupted()
    on_alarm(raising(Exit()))
    exiting, seen = interrupted(), []

    def look():
        seen.extend([is_of_handler(ordinary), is_of_handler(exiting), is_exit_request_of_handler(exiting)])

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [False] * 3
    assert is_of_handler(ordinary)
    assert is_of_handler(exiting)


@pytest.mark.parametrize(("handler", "its_own"), [(signal.default_int_handler, True), (signal.SIG_IGN, False)])
def test_ctrl_c_has_no_frame_of_a_handler_unless_the_host_has_set_one(monkeypatch, handler, its_own):
    monkeypatch.setattr(interruptible, "_handler_of", lambda _number: handler)
    assert is_exit_request_of_handler(raised(KeyboardInterrupt())) is its_own
    assert not is_exit_request_of_handler(raised(SystemExit()))


def test_variables_of_a_class_body_are_not_looked_at(on_alarm):
    """They may be any mapping of the user's, which runs code of its own."""

    class Mapping(dict):
        def values(self):
            raise AssertionError("it was looked at")

    class Meta(type):
        @classmethod
        def __prepare__(cls, *_):
            return Mapping()

    def make_class():
        class _Body(metaclass=Meta):
            signal.raise_signal(signal.SIGALRM)
            for _ in range(1000):
                pass

    on_alarm(raising(Ended()))
    with pytest.raises(Ended) as caught:
        make_class()
    assert is_of_handler(caught.value)


def test_an_exception_that_was_never_raised_is_nobodys():
    assert not is_exit_request_of_handler(SystemExit())


def test_objects_of_the_users_are_not_compared(on_alarm):
    """To compare them may run any code."""

    class Hostile:
        __hash__ = None

        def __eq__(self, _other):
            raise AssertionError("it was compared")

    def fail():
        one = Hostile()
        several = (one, one)
        raise Ended(several and "by itself")

    on_alarm(raising(Ended()))
    with pytest.raises(Ended) as caught:
        fail()
    assert not is_of_handler(caught.value)
