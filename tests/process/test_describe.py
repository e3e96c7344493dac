"""What messages say of objects: nothing of theirs gets out, and nothing of a signal handler's is lost."""

from __future__ import annotations

import operator
import signal
import sys
import threading

import pytest

from pidfdpool.process import describe, interruptible  # noqa: F401  as in every host


class Hostile(BaseException):
    def __str__(self):
        raise Hostile

    __repr__ = __str__


class Callable:
    def __call__(self):
        return None


class Nameless(Callable):
    def __getattribute__(self, name):
        raise Hostile


def test_objects_that_raise_are_described_by_their_types():
    assert describe.text_of(Hostile()) == "(it has no text)"
    assert describe.repr_of(Hostile()) == "<Hostile, whose repr() fails>"
    assert describe.error_text(Hostile()) == "Hostile: (it has no text)"


def test_names_of_functions_classes_and_other_callables():
    assert describe.name_of(test_names_of_functions_classes_and_other_callables).endswith("and_other_callables")
    assert describe.name_of(operator.neg) == "_operator.neg"
    assert describe.name_of(int) == "builtins.int"
    assert describe.name_of([].append) == "list.append"
    assert describe.name_of(Callable) == describe.name_of(Callable()) == f"{__name__}.Callable"
    strange = type("Strange", (), {"__module__": property(lambda _: 1 / 0)})
    assert describe.name_of(strange) == "Strange"


def in_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_a_name_that_raises_does_no_harm_where_no_signal_handler_can_have_done_so():
    assert in_thread(lambda: describe.name_of(Nameless())) == "Nameless"


class Interrupted:
    """A signal comes while this is asked for its text."""

    def __str__(self):
        signal.raise_signal(signal.SIGALRM)
        return "some text"

    __repr__ = __str__


class Leaving:
    """Raises by itself what handlers raise."""

    def __str__(self):
        raise SystemExit

    __repr__ = __str__


class Handlers:
    def method(self, signum, frame):
        raise SystemExit

    @staticmethod
    def function(signum, frame):
        signal.signal(signum, signal.SIG_DFL)
        raise SystemExit

    def variadic(*_):
        raise SystemExit

    @staticmethod
    def called(signum, frame):
        sys.exit(3)


HANDLERS = [Handlers().method, Handlers.function, Handlers.variadic, Handlers.called, signal.default_int_handler]
DESCRIBING = [describe.text_of, describe.repr_of, lambda value: describe.error_text(SystemExit(value))]


@pytest.fixture
def handle():
    before = signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGINT)
    yield lambda handler: signal.signal(signal.SIGALRM, handler)
    signal.signal(signal.SIGALRM, before[0])
    signal.signal(signal.SIGINT, before[1])


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: handler.__name__)
@pytest.mark.parametrize("function", DESCRIBING, ids=["text", "repr", "error"])
def test_what_a_signal_handler_raises_to_end_the_program_goes_on(function, handler, handle):
    handle(handler)
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        function(Interrupted())


@pytest.mark.parametrize("function", DESCRIBING, ids=["text", "repr", "error"])
def test_what_an_object_raises_by_itself_does_not_go_on(function, handle):
    handle(lambda *_: None)
    assert "some text" in function(Interrupted())
    described = function(Leaving())
    assert described in ("(it has no text)", "<Leaving, whose repr() fails>", "SystemExit: (it has no text)")
    assert in_thread(lambda: function(Leaving())) == described


def test_an_object_that_interrupts_by_itself_is_described_where_ctrl_c_has_another_handler(handle):
    class Interrupting:
        def __str__(self):
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a worker
    assert describe.text_of(Interrupting()) == "(it has no text)"


@pytest.mark.parametrize("function", [int, operator.neg, eval, Callable()], ids=["class", "C", "builtin", "object"])
def test_what_a_signal_handler_raises_meanwhile_goes_on(function):
    """Each submit asks for a name: a handler that ends the program was lost, now and then, and it went on."""

    def leave(*_):
        raise SystemExit

    before = signal.signal(signal.SIGALRM, leave)
    ended = 0
    try:
        for _ in range(200):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0005)
                while True:
                    describe.name_of(function)
            except SystemExit:
                ended += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ended == 200
