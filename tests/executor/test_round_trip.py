"""The way of a call to a worker and back, within this process. Without an executor."""

from __future__ import annotations

import functools
import multiprocessing
import sys
import threading
import types

import pytest

from pidfdpool import CallNotSendable, PayloadError
from pidfdpool.executor.round_trip import RoundTrip, SentCall
from pidfdpool.serialization import picklers
from tests import calls
from tests.conditions import open_descriptors

forked = pytest.mark.parametrize("forked", [False, True])


class Refuses:
    def __reduce__(self):
        raise LookupError("not this one")


class Breaks:
    def __reduce__(self):
        return int, ("no number",)


# ---- calls --------------------------------------------------------------------------------------------------------


@forked
def test_a_call_is_what_it_was_when_it_was_sent_each_time_it_is_loaded(forked):
    items, keyword = [1], {"a": [2]}
    sent = RoundTrip(forked=forked).sent((calls.double, (items,), {"key": keyword}))
    items.append(5)
    keyword["a"].append(5)
    for _ in range(2):
        function, arguments, keywords = sent.load()
        assert (function, arguments, keywords) == (calls.double, ([1],), {"key": {"a": [2]}})
        arguments[0].append("changed")
        keywords["key"]["a"].append("changed")


@forked
@pytest.mark.parametrize(
    ("call", "kind", "told"),
    [
        ((calls.double, (1, threading.Lock()), {}), CallNotSendable, "argument 2 of double"),
        ((calls.double, (), {"key": threading.Lock()}), CallNotSendable, "argument 'key' of double"),
        ((threading.Lock().acquire, (), {}), CallNotSendable, "the function"),
        ((calls.double, (Refuses(),), {}), LookupError, "not this one"),
    ],
    ids=["argument", "keyword", "function", "its own error"],
)
def test_what_cannot_be_sent_is_refused_with_the_part_that_it_is(forked, call, kind, told):
    with pytest.raises(kind, match=told) as raised:
        RoundTrip(forked=forked).sent(call)
    assert raised.value.__cause__ is not None


@forked
def test_what_a_function_holds_is_copied_with_it(forked):
    items = [1]
    function, *_ = RoundTrip(forked=forked).sent((functools.partial(calls.double, items), (), {})).load()
    assert function.args == ([1],)
    assert function.args[0] is not items


@pytest.fixture
def script(monkeypatch):
    """Put a script in the place of this process's own."""
    made = types.ModuleType("__main__")
    made.LOCK = threading.Lock()
    exec("def locked():\n    return LOCK.locked()\ndef plain(*_):\n    return 1\n", vars(made))
    monkeypatch.setitem(sys.modules, "__main__", made)
    return made


def test_a_fork_has_the_scripts_functions_and_they_stay_this_process_s_own(script):
    sent = RoundTrip(forked=True).sent((script.locked, ([1],), {}))
    function, arguments, _ = sent.load()
    assert function is script.locked
    assert arguments == ([1],)


def test_the_functions_of_a_script_are_not_copied(script):
    argument = [1]
    function, arguments, keywords = RoundTrip(forked=False).sent((script.plain, (argument,), {"a": 2})).load()
    assert function is script.plain
    assert arguments == ([1],)
    assert arguments[0] is not argument
    assert keywords == {"a": 2}


def test_of_a_call_whose_function_does_not_pickle_the_arguments_are_copied():
    items, lock = [1], threading.Lock()
    sent = SentCall((lock.acquire, (items,), {"key": items}))
    items.append(2)
    function, arguments, keywords = sent.load()
    assert function == lock.acquire
    assert (arguments, keywords) == (([1],), {"key": [1]})


def test_a_call_that_does_not_pickle_at_all_is_this_processs_own():
    lock = threading.Lock()
    arguments, keywords = ([lock],), {"key": lock}
    loaded = SentCall((print, arguments, keywords)).load()
    assert loaded == (print, arguments, keywords)
    assert loaded[1] is arguments


def test_what_a_call_that_cannot_be_rebuilt_raises_is_raised():
    with pytest.raises(ValueError, match="no number"):
        RoundTrip(forked=False).sent((calls.double, (Breaks(),), {})).load()


# ---- results ------------------------------------------------------------------------------------------------------


@forked
def test_a_result_is_a_copy(forked):
    value = [1, {"a": 2}]
    result = RoundTrip(forked=forked).result(value)
    assert result == value
    assert result is not value


@forked
def test_a_result_that_cannot_be_pickled_or_rebuilt_is_an_error_as_in_a_pool(forked):
    way = RoundTrip(forked=forked)
    with pytest.raises(TypeError, match="lock") as raised:
        way.result([threading.Lock()])
    with pytest.raises(LookupError, match="not this one") as own:
        way.result(Refuses())
    for error in (raised.value, own.value):
        assert error.__cause__ is not None, "where it was raised is told as text"
    with pytest.raises(PayloadError, match="no number"):
        way.result(Breaks())


def test_a_result_that_cannot_be_pickled_is_named_in_the_error():
    with pytest.raises(TypeError) as raised:
        RoundTrip(forked=False).result({"key": threading.Lock()})
    assert any("result" in note for note in getattr(raised.value, "__notes__", [str(raised.value)]))


@forked
def test_an_error_is_a_copy_with_its_traceback_as_text(forked):
    with pytest.raises(LookupError) as raised:
        raise LookupError("mine", 1)
    copied = RoundTrip(forked=forked).error(raised.value)
    assert copied is not raised.value
    assert (type(copied), copied.args) == (LookupError, ("mine", 1))
    assert copied.__traceback__ is None
    assert "LookupError" in str(copied.__cause__)


# ---- what is shared on the way ------------------------------------------------------------------------------------


@pytest.fixture
def pipe():
    """Give both ends of a pipe, and end what multiprocessing starts to share them."""
    from multiprocessing import resource_sharer

    ends = multiprocessing.Pipe()
    yield ends
    for end in ends:
        end.close()
    resource_sharer.stop(20)


def shared_now():
    """Return how many descriptors wait to be fetched, and whether some thread has to look after such."""
    from multiprocessing import resource_sharer

    return len(resource_sharer._resource_sharer._cache), bool(picklers.shared_resources)


@forked
def test_what_multiprocessing_shares_on_the_way_waits_once_and_is_shared_no_more_afterwards(forked, pipe):
    way = RoundTrip(forked=forked)
    sent = way.sent((calls.double, (pipe[0],), {}))
    assert shared_now() == (1, True), "what was made to see whether it can be sent is gone"
    _, (arrived,), _ = sent.load()
    assert shared_now() == (0, False)
    arrived.close()
    way.result(pipe[0]).close()
    assert shared_now() == (0, False)
    with pytest.raises(CallNotSendable):
        way.sent((calls.double, (pipe[0], threading.Lock()), {}))
    assert shared_now() == (0, False)


@forked
def test_what_was_shared_with_what_breaks_waits_no_longer(forked, pipe):
    way = RoundTrip(forked=forked)
    sent = way.sent((calls.double, (Breaks(), pipe[0]), {}))
    with pytest.raises(ValueError, match="no number"):
        sent.load()
    assert shared_now() == (0, False)
    with pytest.raises(PayloadError):
        way.result([Breaks(), pipe[0]])
    assert shared_now() == (0, False)


# ---- the start ----------------------------------------------------------------------------------------------------


def test_an_initializer_that_cannot_be_sent_is_told_except_to_a_fork():
    lock = threading.Lock()
    with pytest.raises(TypeError, match="lock"):
        RoundTrip(forked=False).check_start((print, (lock,)))
    RoundTrip(forked=True).check_start((print, (lock,)))
    RoundTrip(forked=False).check_start((print, (1,)))
    RoundTrip(forked=False).check_start(None)


def test_what_can_be_sent_at_a_start_only_is_no_error_and_leaves_no_descriptor():
    way = RoundTrip(forked=False)
    ends = multiprocessing.Pipe()
    before = open_descriptors()
    way.check_start((print, ends))
    assert open_descriptors() == before
    for end in ends:
        end.close()
    lock = multiprocessing.get_context("fork").Lock()
    way.check_start((print, (lock,)))


def test_on_another_system_an_initializer_has_to_pickle(monkeypatch):
    from pidfdpool.executor import round_trip

    monkeypatch.setattr(round_trip.sys, "platform", "darwin")
    way = RoundTrip(forked=False)
    way.check_start((print, (1,)))
    with pytest.raises(TypeError):
        way.check_start((print, (threading.Lock(),)))
    with pytest.raises(RuntimeError, match="through inheritance"):
        way.check_start((print, (multiprocessing.get_context("fork").Lock(),)))
