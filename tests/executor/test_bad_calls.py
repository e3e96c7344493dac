"""Calls that cannot be sent: what the future tells, and that no other call is affected."""

from __future__ import annotations

import asyncio
import gc
import io
import multiprocessing
import sys
import textwrap
import threading
import traceback
import types
import weakref

import pytest

from pidfdpool import CallNotSendable, LargeGlobalWarning, PidfdPoolExecutor
from pidfdpool.executor.unsendable import describe_pickling_error
from pidfdpool.serialization import omitted_globals, payload, picklers
from tests import calls


class Box:
    def __init__(self, **held):
        vars(self).update(held)


class Refuses:
    """Has an error of its own."""

    def __reduce__(self):
        raise LookupError("mine")


def refused(pool, function, *arguments, **keywords):
    """Return the error of a call, having seen that those around it are well."""
    before = pool.submit(calls.double, 1)
    error = pool.submit(function, *arguments, **keywords).exception(20)
    assert (before.result(20), pool.submit(calls.double, 2).result(20)) == (2, 4)
    return error


def lock():
    return threading.Lock()


def generator():
    yield


def function_with(**held):
    value = held["variable"]
    return lambda: value


def function_with_default(value):
    return lambda a=value: a


def function_with_keyword(value):
    return lambda *, key=value: key


@pytest.mark.parametrize(
    ("arguments", "keywords", "told"),
    [
        (lambda: (1, lock()), {}, "argument 2 of double() (_thread.lock)"),
        (lambda: (), {"key": lock}, "argument 'key' of double() (_thread.lock)"),
        (lambda: (generator(),), {}, "argument 1 of double() (generator)"),
        (lambda: (sys._getframe(),), {}, "argument 1 of double() (frame)"),
        (lambda: ([1, lock()],), {}, "argument 1 of double(), in it [1] (_thread.lock)"),
        (lambda: ({"a": [{"b": (lock(),)}]},), {}, "argument 1 of double(), in it ['a'][0]['b'][0] (_thread.lock)"),
        (lambda: (Box(a=Box(b=[lock()])),), {}, "argument 1 of double(), in it .a.b[0] (_thread.lock)"),
        (lambda: (function_with(variable=lock()),), {}, "in it its variable 'value' (_thread.lock)"),
        (lambda: (function_with_default(lock()),), {}, "in it its default 1 (_thread.lock)"),
        (lambda: (function_with_keyword([lock()]),), {}, "in it its default 'key'[0] (_thread.lock)"),
    ],
    ids=[
        "argument",
        "keyword",
        "generator",
        "frame",
        "list",
        "deep",
        "attributes",
        "closure",
        "default",
        "keyword-only",
    ],
)
def test_the_part_is_named(pool, way, arguments, keywords, told):
    error = refused(pool, calls.double, *arguments(), **{name: make() for name, make in keywords.items()})
    assert type(error) is CallNotSendable
    assert told in str(error)
    assert "cannot be sent to a worker: cannot pickle" in str(error)
    for remedy in ("initializer=", "module", "mp_context='fork'"):
        assert remedy in str(error)
    assert error.__cause__ is not None


def ring(held):
    made = []
    made += made, held
    return made


def boxed_in_itself(held):
    box = Box()
    box.itself, box.held = box, held
    return box


def nested(held):
    for _ in range(200):
        held = [held]
    return held


@pytest.mark.parametrize("around", [ring, boxed_in_itself, nested, lambda held: [0] * 1000 + [held]])
def test_however_an_object_is_built_the_search_for_the_part_ends_and_names_what_it_has_found(around):
    argument = around(lock())
    error = described(calls.double, argument)
    assert type(error) is CallNotSendable
    assert "argument 1 of double()" in str(error)
    assert len(str(error)) < 1000


def described(function, *arguments):
    """Return what a call's future would be told of the error of pickling it."""
    try:
        payload.dumps((function, arguments, {}))
    except Exception as error:
        return describe_pickling_error(error, function, arguments, {}, None)
    raise AssertionError("it pickles")


def test_a_function_that_cannot_be_sent(pool):
    error = refused(pool, function_with(variable=lock()))
    assert type(error) is CallNotSendable
    assert "its variable 'value' (_thread.lock)" in str(error)


def test_a_global_of_code_that_belongs_to_no_module(pool):
    """So it is with what `exec` has run, in a debugger or the like: its globals travel with it."""
    names = {"__name__": "elsewhere", "held": [lock()]}
    exec("def work():\n    return held\ndef around():\n    return work()", names)
    assert "the function work, in it its global 'held'[0] (_thread.lock)" in str(refused(pool, names["work"]))
    assert "its global 'work', its global 'held'[0] (_thread.lock)" in str(refused(pool, names["around"]))


def test_it_is_what_callers_catch_of_the_standard_pool(pool):
    import pickle

    error = refused(pool, calls.double, lock())
    assert isinstance(error, TypeError)
    assert isinstance(error, pickle.PicklingError)


@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [value], lambda value: Box(a=value)])
def test_an_objects_own_error_is_passed_on_as_it_is(pool, wrap):
    error = refused(pool, calls.double, wrap(Refuses()))
    assert type(error) is LookupError
    assert error.args == ("mine",)


def test_a_file_that_is_open(pool, tmp_path):
    with open(tmp_path / "file", "w") as file:
        error = refused(pool, calls.double, [file])
    assert type(error) is CallNotSendable
    assert "in it [0] (_io.TextIOWrapper)" in str(error)
    assert refused(pool, calls.double, io.StringIO("a")) is not None, "TypeError in the task: it was sent"


@pytest.mark.parametrize("chunksize", [None, 1, 3])
def test_map_tells_it_where_the_result_would_be(pool, chunksize):
    options = {} if chunksize is None else {"chunksize": chunksize}
    results = pool.map(calls.double, [1, 2, lock(), 4], **options)
    with pytest.raises((CallNotSendable, TypeError), match="cannot pickle"):
        list(results)
    assert list(pool.map(calls.double, [1, 2], **options)) == [2, 4]


def test_map_gives_what_comes_before_it(pool):
    results = pool.map(calls.double, [1, 2, lock(), 4])
    assert (next(results), next(results)) == (2, 4)
    with pytest.raises(CallNotSendable, match=r"argument 1 of double\(\) \(_thread.lock\)"):
        next(results)


@pytest.mark.parametrize("culprit", [calls.Unpicklable(), threading.Lock()], ids=["its own code", "a lock"])
def test_what_was_shared_in_attempts_to_find_the_part_is_shared_no_more(culprit):
    """Each attempt to pickle a pipe end has made a duplicate of it."""
    from multiprocessing import resource_sharer

    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        try:
            error = describe_pickling_error(TypeError("no"), print, (theirs, [theirs, culprit]), {}, None)
            assert isinstance(error, TypeError)
            assert "argument 2 of print()" in str(error)
            assert picklers.shared_resources == {}
            assert resource_sharer._resource_sharer._cache == {}, "none of them waits to be fetched"
        finally:
            resource_sharer.stop(20)


# ---- large globals ---------------------------------------------------------------------------------------------


@pytest.fixture
def main(monkeypatch):
    """Put a script in the place of this process's own, with a global that is large and one that is not."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    monkeypatch.setattr(omitted_globals, "_warned", set())
    module.TABLE = {number: str(number) for number in range(150_000)}
    code = "def large():\n    return len(TABLE)\ndef around():\n    return large()\ndef small():\n    return 1\n"
    exec(textwrap.dedent(code), vars(module))
    return module


def test_a_large_global_is_told_of_once_and_at_the_users_line(main, recwarn):
    with PidfdPoolExecutor(1) as pool:
        assert [pool.submit(main.around).result(20) for _ in range(3)] == [150_000] * 3
    (warning,) = [each for each in recwarn if each.category is LargeGlobalWarning]
    assert warning.filename == __file__
    for part in ("'TABLE'", "used by 'large'", "MB"):
        assert part in str(warning.message)


@pytest.mark.filterwarnings("error")
def test_who_does_not_mention_it_is_told_nothing(main):
    with PidfdPoolExecutor(1) as pool:
        assert pool.submit(main.small).result(20) == 1
        assert list(pool.map(main.small.__class__.__call__, [main.small])) == [1]


@pytest.mark.filterwarnings("error")
def test_as_an_error_it_is_the_calls(main):
    with PidfdPoolExecutor(1) as pool:
        assert isinstance(pool.submit(main.large).exception(20), LargeGlobalWarning)
        assert pool.submit(main.small).result(20) == 1


class Fails:
    """Has an error of its own, of a kind that no pickler raises, and tells what it came of."""

    def __reduce__(self):
        try:
            raise KeyError("first")
        except KeyError as error:
            raise RuntimeError("mine") from error


class Stubborn(Box):
    """Cannot be reduced, for a reason that picklers have, too."""

    def __reduce__(self):
        raise TypeError("not me")


@pytest.mark.parametrize("kind", [Fails, Stubborn, Box])
def test_a_call_that_was_refused_is_gone_when_its_future_is(kind):
    """Nobody has to wait for the collector: an exception's traceback holds frames, and these the future with it."""
    gc.disable()
    try:
        with PidfdPoolExecutor(1) as pool:
            for submit in (_submitted, _awaited, _mapped):
                argument = kind(held=lock()) if kind is Box else kind()
                gone = weakref.ref(argument)
                told = submit(pool, argument)
                del argument
                assert "mine" in told if kind is Fails else "cannot be sent" in told
                assert gone() is None, submit.__name__
    finally:
        gc.enable()


def _submitted(pool, argument):
    future = pool.submit(calls.double, argument)
    gone = weakref.ref(future)
    told = _told(future.exception(20))
    del future
    assert gone() is None
    return told


def _awaited(pool, argument):
    async def await_it():
        try:
            await pool.run(calls.double, argument)
        except Exception as error:
            return _told(error)

    return asyncio.run(await_it())


def _mapped(pool, argument):
    try:
        list(pool.map(calls.double, [1, argument, 2]))
    except Exception as error:
        return _told(error)


def _told(error):
    """Return what is printed of it, which tells where in the object's own code it was raised."""
    text = "".join(traceback.format_exception(error))
    if isinstance(error, RuntimeError):
        assert 'raise RuntimeError("mine") from error' in text
        assert "KeyError: 'first'" in text
    return str(error)
