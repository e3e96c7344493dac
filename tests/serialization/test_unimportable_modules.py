"""Tasks from files that were loaded under a name that no worker could import, as servers load them."""

from __future__ import annotations

import functools
import importlib.util
import sys

import pytest

from pidfdpool import GlobalNotAvailable, PidfdPoolExecutor, PoolBroken
from tests import calls

CODE = """
import os
FACTOR = 2
STARTED = []

class Box:
    def __init__(self, value):
        self.value = value
    def __eq__(self, other):
        return type(other) is Box and other.value == self.value
    __hash__ = None
    def opened(self):
        return self.value

class Spilt(Exception):
    pass

def double(number):
    return FACTOR * number

def boxed(value):
    return Box(value)

def spill(text):
    raise Spilt(text)

def begin(value):
    os.environ["BEGUN"] = value

def look(_=None):
    return os.environ.get("BEGUN")
"""


@pytest.fixture
def module(tmp_path):
    """Load a file as servers and schedulers do."""
    name = f"loaded_by_a_server_{tmp_path.name.replace('-', '_')}"
    (tmp_path / "application.py").write_text(CODE)
    spec = importlib.util.spec_from_file_location(name, tmp_path / "application.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    import cloudpickle

    if name in cloudpickle.list_registry_pickle_by_value():
        cloudpickle.unregister_pickle_by_value(module)
    del sys.modules[name]


def echo(value):
    return value


def test_its_functions_and_objects_travel_both_ways(module, way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        assert pool.submit(module.double, 2).result(timeout=20) == 4
        assert pool.submit(functools.partial(module.double, 3)).result(timeout=20) == 6
        assert list(pool.map(module.double, range(6), chunksize=2)) == [0, 2, 4, 6, 8, 10]
        assert pool.submit(module.Box(4).opened).result(timeout=20) == 4
        made = pool.submit(module.boxed, 5).result(timeout=20)
        assert type(made) is module.Box
        assert made == module.Box(5)
        assert pool.submit(echo, module.Box(6)).result(timeout=20) == module.Box(6)
        assert pool.submit(echo, value=module.Box).result(timeout=20) is module.Box
        error = pool.submit(module.spill, "milk").exception(timeout=20)
        assert type(error) is module.Spilt
        assert error.args == ("milk",)


def test_its_functions_may_be_initializers_and_preloaded(module, way):
    with PidfdPoolExecutor(1, mp_context=way, initializer=module.begin, initargs=("here",)) as pool:
        assert pool.submit(module.look).result(timeout=20) == "here"
    with PidfdPoolExecutor(1, mp_context=way, preload=functools.partial(module.begin, "before")) as pool:
        assert pool.submit(module.look).result(timeout=20) == "before"


def test_a_global_that_cannot_travel_is_named(module):
    module.STARTED = sys.stdout  # no pickler can send it
    exec("def use():\n    return STARTED.name", module.__dict__)
    with PidfdPoolExecutor(1) as pool:
        named = f"^the global 'STARTED' of module '{module.__name__}' .*, used by 'use', cannot be sent"
        with pytest.raises(GlobalNotAvailable, match=named):
            pool.submit(module.use).result(timeout=20)
        assert pool.submit(module.double, 2).result(timeout=20) == 4


def test_an_initializer_that_cannot_travel_is_reported(module):
    module.STARTED = sys.stdout
    exec("def use():\n    return STARTED.name", module.__dict__)
    with PidfdPoolExecutor(1, initializer=module.use) as pool:
        with pytest.raises(PoolBroken, match="initializer"):
            pool.submit(calls.double, 2).result(timeout=20)
