"""Calls that are sent as their arguments and the name of their function."""

import math
import random
import sys
import zlib
from decimal import Decimal
from types import ModuleType

import pytest

from pidfdpool.serialization import named_calls, payload


class Point:
    def __init__(self, x):
        self.x = x


class Unpicklable:
    def __reduce__(self):
        raise RuntimeError("no")


@pytest.fixture
def module(monkeypatch, tmp_path):
    """Return a module that can be imported, with functions `work` and `rest`."""
    (tmp_path / "named_calls_sample.py").write_text("def work(*values): return values\ndef rest(): return 'rest'\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("named_calls_sample")
    del sys.modules["named_calls_sample"]


@pytest.mark.parametrize("arguments", [(), (1, 2.5, None, True), ("text", b"bytes"), ([1, {"a": (2,)}],), (10**40,)])
def test_it_comes_back_as_it_was(module, arguments):
    data = named_calls.dumps(module.work, arguments)
    assert data[-1] == named_calls.MARK
    assert payload.loads([data]) == (module.work, arguments, {})


@pytest.mark.parametrize(
    "function", [abs, print, math.hypot, zlib.crc32, complex, Decimal], ids=lambda one: one.__name__
)
def test_functions_in_c_and_classes_are_sent_by_name_too(function):
    data = named_calls.dumps(function, (1, 2))
    assert data[-1] == named_calls.MARK
    assert payload.loads([data]) == (function, (1, 2), {})


@pytest.mark.parametrize(
    "function",
    [random.random, [].append, "text".upper, dict.fromkeys, int.from_bytes, str.upper, (1).__add__, object.__new__],
    ids=lambda one: one.__name__,
)
def test_methods_in_c_are_left_to_others(function):
    """Guards: such a method has an object, which its name would not bring along."""
    assert named_calls.dumps(function, ()) is None


class Meta(type):
    pass


class Strange(metaclass=Meta):
    pass


def test_a_class_whose_metaclass_may_say_how_it_is_pickled_is_left_to_others():
    assert named_calls.dumps(Strange, ()) is None
    assert named_calls.dumps(Point, (1,)) is not None
    local = type("Local", (), {"__module__": __name__})
    assert named_calls.dumps(local, ()) is None


def test_a_function_in_c_that_was_replaced_is_not_sent_by_its_name(monkeypatch):
    assert named_calls.dumps(zlib.adler32, (b"",)) is not None
    original = zlib.adler32
    monkeypatch.setattr(zlib, "adler32", zlib.crc32)
    assert named_calls.dumps(original, (b"",)) is None
    assert named_calls.dumps(zlib.crc32, (b"",)) is not None


def test_it_may_lie_in_shared_memory(module):
    data = named_calls.dumps(module.work, ("x" * 100_000,))
    assert payload.loads([memoryview(bytearray(data))]) == (module.work, ("x" * 100_000,), {})


def test_objects_are_arguments_too(module):
    shared = Point(3)
    function, (first, second), keywords = payload.loads([named_calls.dumps(module.work, (shared, shared))])
    assert (function, first.x, keywords) == (module.work, 3, {})
    assert first is second


def test_an_object_that_pickles_as_nothing_is_left_to_others(module):
    assert named_calls.dumps(module.work, (Unpicklable(),)) is None
    assert named_calls.dumps(module.work, (lambda: None,)) is None


def test_arguments_are_a_snapshot(module):
    values = [1]
    data = named_calls.dumps(module.work, (values,))
    values.append(2)
    assert payload.loads([data])[1] == ([1],)


def test_a_function_whose_name_is_bound_to_another_one_is_not_sent_by_it(module):
    before = module.work
    assert named_calls.dumps(before, ()) is not None
    module.work = module.rest
    assert named_calls.dumps(before, ()) is None
    assert named_calls.dumps(module.rest, ()) is not None
    module.work = before
    assert named_calls.dumps(before, ()) is not None


def test_a_function_with_another_name_than_before_is_not_sent_by_the_old_one(module):
    assert named_calls.dumps(module.work, ()) is not None
    module.work.__qualname__ = "rest"
    assert named_calls.dumps(module.work, ()) is None
    module.work.__qualname__ = "work"
    module.work.__module__ = "elsewhere"
    assert named_calls.dumps(module.work, ()) is None


def test_a_function_whose_module_was_replaced_is_not_sent_by_its_name(module, monkeypatch):
    assert named_calls.dumps(module.work, ()) is not None
    monkeypatch.setitem(sys.modules, module.__name__, ModuleType(module.__name__))
    assert named_calls.dumps(module.work, ()) is None


def test_the_worker_takes_what_has_the_name_now(module):
    data = named_calls.dumps(module.work, ())
    assert payload.loads([data])[0] is module.work
    module.work = module.rest
    assert payload.loads([data])[0] is module.rest


def test_the_worker_imports_the_module(module):
    data = named_calls.dumps(module.work, (1,))
    del sys.modules[module.__name__]
    function, arguments, _ = payload.loads([data])
    assert function is sys.modules[module.__name__].work
    assert arguments == (1,)


def test_a_name_that_is_not_there_is_the_error_of_pickle(module):
    data = named_calls.dumps(module.work, ())
    del module.work
    with pytest.raises(AttributeError, match="work"):
        payload.loads([data])


def test_what_a_worker_cannot_import_is_left_to_others(module):
    def inner():
        pass

    def script():
        pass

    script.__module__, script.__qualname__ = "__main__", "script"
    made = ModuleType("named_calls_made")
    exec("def work(): pass", vars(made))
    for function in (inner, lambda: None, script, made.work):
        assert named_calls.dumps(function, ()) is None


@pytest.mark.parametrize("text", ["__main__:work", "__mp_main__"])
def test_a_text_that_names_the_script_is_left_to_others(module, text):
    assert named_calls.dumps(module.work, (text,)) is None


def test_the_ends_of_calls_of_several_functions_are_known_side_by_side(module):
    named_calls._endings.clear()
    for function in (module.work, module.rest, module.work):
        assert named_calls.dumps(function, ()) is not None
    assert named_calls._endings.keys() == {id(module.work), id(module.rest)}


def test_many_functions_do_not_pile_up(module):
    for number in range(named_calls._MOST_NAMES + 10):
        exec(f"def f{number}(): pass", vars(module))
        assert named_calls.dumps(vars(module)[f"f{number}"], ()) is not None
    assert len(named_calls._endings) <= named_calls._MOST_NAMES


def test_what_was_known_of_another_function_with_the_same_id_does_not_count(module):
    named_calls._endings[id(module.work)] = module.__name__, "gone", b"named_calls_sample:gone\x17\x02"
    assert payload.loads([named_calls.dumps(module.work, (1,))]) == (module.work, (1,), {})


@pytest.mark.parametrize(("length", "by_name"), [(255, True), (256, False), (257, False)])
def test_a_name_whose_length_takes_more_than_a_byte_is_left_to_others(module, length, by_name):
    name = "f" * (length - len(f"{module.__name__}:"))
    exec(f"def {name}(): pass", vars(module))
    data = named_calls.dumps(vars(module)[name], ())
    assert (data is not None) == by_name
    assert data is None or payload.loads([data])[0] is vars(module)[name]
