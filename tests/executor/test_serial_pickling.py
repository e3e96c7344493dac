"""SerialExecutor(check_pickling=True): calls and results go through the pickling of a worker and back."""

from __future__ import annotations

import functools
import gc
import multiprocessing
import os
import pickle
import threading

import numpy
import pytest

from pidfdpool import CallNotSendable, PayloadError, PidfdPoolExecutor, PoolBroken, SerialExecutor
from tests import calls
from tests.conditions import ROOT, run_python

WAYS = ("spawn", "fork")


@pytest.fixture
def of_multiprocessing():
    """End what multiprocessing itself has started to share descriptors and to count semaphores."""
    from multiprocessing import resource_sharer, resource_tracker

    yield
    resource_sharer.stop()
    gc.collect()
    resource_tracker._resource_tracker._stop()


@pytest.fixture(params=WAYS)
def executor(request):
    with SerialExecutor(2, request.param, check_pickling=True) as executor:
        yield executor


def append_to(items: list) -> list:
    items.append("in the call")
    return items


class Refuses:
    def __reduce__(self):
        raise ArithmeticError("not this one")


class Breaks:
    """Pickles, and cannot be rebuilt."""

    def __reduce__(self):
        return int, ("no number",)


class CannotBeRebuilt(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def raise_unpicklable():
    error = ValueError("with a lock")
    error.lock = threading.Lock()
    raise error


def raise_two():
    raise CannotBeRebuilt(1, 2)


def test_a_call_works_on_a_copy_and_so_does_who_gets_its_result(executor):
    items = ["given"]
    result = executor.submit(append_to, items).result()
    assert items == ["given"]
    assert result == ["given", "in the call"]
    kept: dict = {}
    assert executor.submit(lambda: kept).result() is not kept
    array = numpy.arange(100_000)
    doubled = executor.submit(numpy.multiply, array, 2).result()
    assert (doubled == 2 * array).all()
    assert SerialExecutor().submit(append_to, items).result() is items, "without the option it is the caller's own"


def test_each_attempt_gets_the_arguments_as_they_were(executor):
    def fill(items: list) -> None:
        items.append(1)
        raise ValueError(len(items))

    view = executor.options(retries=2, retry_on=ValueError, retry_backoff=0)
    error = view.submit(fill, []).exception()
    assert error.args == (1,)


def _with_default(lock):
    def call(lock=lock):
        return lock

    return call


UNSENDABLE = [
    (abs, (threading.Lock(),), CallNotSendable, "argument 1 of abs"),
    (_with_default(threading.Lock()), (), CallNotSendable, "its default 1"),
    (abs, ([{"key": threading.Lock()}],), CallNotSendable, "in it"),
    (functools.partial(abs, threading.Lock()), (), CallNotSendable, "the function"),
    (abs, (Refuses(),), ArithmeticError, "not this one"),
    (abs, ((each for each in "ab"),), CallNotSendable, "generator"),
]


@pytest.mark.parametrize(("fn", "arguments", "kind", "text"), UNSENDABLE, ids=range(len(UNSENDABLE)))
def test_what_cannot_be_sent_fails_as_in_a_pool(executor, way, fn, arguments, kind, text):
    error = executor.submit(fn, *arguments).exception()
    assert type(error) is kind
    assert text in str(error)
    with PidfdPoolExecutor(1, way) as pool:
        theirs = pool.submit(fn, *arguments).exception()
    assert (type(theirs), str(theirs)) == (type(error), str(error))
    assert executor.submit(abs, -1).result() == 1


OUTCOMES = [
    (calls.double, (None,), TypeError),
    (threading.Lock, (), TypeError),
    (Refuses, (), ArithmeticError),
    (Breaks, (), PayloadError),
    (raise_unpicklable, (), PayloadError),
    (raise_two, (), PayloadError),
    (abs, (Breaks(),), ValueError),
]


@pytest.mark.parametrize(("fn", "arguments", "kind"), OUTCOMES, ids=range(len(OUTCOMES)))
def test_outcomes_are_those_of_a_pool(executor, way, fn, arguments, kind):
    error = executor.submit(fn, *arguments).exception()
    with PidfdPoolExecutor(1, way) as pool:
        theirs = pool.submit(fn, *arguments).exception()
    assert type(error) is type(theirs) is kind
    assert _plain(error) == _plain(theirs)
    assert type(error.__cause__) is type(theirs.__cause__)


def _plain(error: BaseException) -> tuple[str, list[str]]:
    notes = [note.partition(" at 0x")[0] for note in getattr(error, "__notes__", [])]
    return str(error).partition("\n")[0].partition(" at 0x")[0], notes


def test_a_pipe_end_arrives_and_no_descriptor_stays(executor, of_multiprocessing):
    reader, writer = multiprocessing.Pipe(duplex=False)
    with reader, writer:
        executor.submit(_send_and_close, writer).result()
        assert reader.recv() == "sent"


def _send_and_close(connection) -> None:
    connection.send("sent")
    connection.close()


def test_an_initializer_that_cannot_be_sent_breaks_the_executor():
    lock = threading.Lock()
    error = SerialExecutor(1, "spawn", print, (lock,), check_pickling=True).submit(abs, 1).exception()
    assert type(error) is PoolBroken
    assert "cannot be sent to workers" in str(error)
    assert SerialExecutor(1, "fork", id, (lock,), check_pickling=True).submit(abs, -1).result() == 1
    assert SerialExecutor(1, "spawn", id, (lock,)).submit(abs, -1).result() == 1


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_an_initializer_may_have_the_locks_of_multiprocessing(method, of_multiprocessing):
    lock = multiprocessing.get_context(method).Lock()
    executor = SerialExecutor(1, None, id, (lock,), check_pickling=True)
    assert executor.submit(abs, -1).result() == 1


SCRIPT = """
import threading
from pidfdpool import SerialExecutor, PidfdPoolExecutor

COUNT = 0
LOCK = threading.Lock()

class Account:
    opened = []

    def __init__(self, owner):
        self.owner = owner

    def greet(self):
        return f"{self.owner}, {COUNT}"

    def __eq__(self, other):
        return type(self) is type(other) and self.owner == other.owner

    __hash__ = None

def work(account):
    global COUNT
    COUNT += 1
    with LOCK:
        return account

def make():
    return Account("somebody")

if __name__ == "__main__":
    for way in ("spawn", "fork"):
        before = {name: value for name, value in vars(Account).items() if callable(value) or name == "opened"}
        with SerialExecutor(1, way, check_pickling=True) as executor:
            account = Account("me")
            result = executor.submit(work, account).result()
            assert result is not account and result == account, result
            assert type(executor.submit(make).result()) is Account
            assert executor.submit(lambda: Account("you").greet()).result().startswith("you")
            assert executor.submit(account.greet).result().startswith("me")
            if way == "spawn":  # a fork would have to send the lock along with the lambda
                assert executor.submit(lambda: LOCK.locked()).result() is False
        assert all(vars(Account)[name] is value for name, value in before.items()), "the class is as it was"
        assert Account.greet.__globals__ is globals()
    print("ok")
"""


def test_a_script_with_functions_and_classes_of_its_own(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    ran = run_python(f"import runpy; runpy.run_path({str(tmp_path / 'script.py')!r}, run_name='__main__')")
    assert (ran.stdout, ran.stderr) == ("ok\n", "")
    import subprocess
    import sys

    environment = {**os.environ, "PYTHONPATH": ROOT}
    ran = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (ran.stdout, ran.stderr) == ("ok\n", "")


def test_a_pickle_of_the_executor_is_refused():
    with pytest.raises((TypeError, pickle.PicklingError)):
        pickle.dumps(SerialExecutor())
