"""A module that uses a pool when it is imported, and is imported by workers in order to rebuild a task."""

from __future__ import annotations

import importlib
import os
import sys

import pytest

from pidfdpool import PidfdPoolExecutor, PoolBroken
from tests import calls
from tests.conditions import run_python

HOST = "PIDFDPOOL_TEST_HOST"
REFUSED = "It is not started: each worker would start such a pool"

HEAD = f"""
import os, threading, time
from pidfdpool import PidfdPoolExecutor

with open(__file__ + ".imports", "a") as file:
    file.write(f"{{os.getpid()}}\\n")
in_host = os.environ.get("{HOST}") == str(os.getpid())
pool = PidfdPoolExecutor(2)

def double(number):
    return 2 * number

def use():
    return list(pool.map(double, [1, 2]))
"""
USE = "if not in_host:\n    RESULTS = use()\n"


class Modules:
    """Modules that are written to a folder which host and workers import from."""

    def __init__(self, folder):
        self._folder = folder
        self.names = []

    def write(self, code, name="uses_a_pool"):
        """Write a module; return its name, which is its own for each test."""
        name = f"{name}_{self._folder.name.replace('-', '_')}"
        self.path(name).write_text(HEAD + code)
        self.names.append(name)
        return name

    def path(self, name):
        return self._folder / f"{name}.py"

    def load(self, code):
        """Write a module and import it here, where it uses no pool."""
        return importlib.import_module(self.write(code))

    def importers(self, name):
        """Return the processes that have imported it, as often as they did."""
        return [int(line) for line in (self._folder / f"{name}.py.imports").read_text().split()]

    def line_of(self, name, code):
        return self.path(name).read_text().split("\n").index(code) + 1


@pytest.fixture
def modules(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(HOST, str(os.getpid()))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    modules = Modules(tmp_path)
    yield modules
    for name in modules.names:
        sys.modules.pop(name, None)


@pytest.fixture
def pool(modules, way):
    """Give a pool that has been started: by fork as well, workers lack the modules that the host imports later."""
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        pool.submit(calls.double, 1).result()
        yield pool


def echo(value):
    return value


SUBMITTERS = {
    "submit": lambda pool, function: pool.submit(function, 3).result(timeout=20),
    "map": lambda pool, function: list(pool.map(function, [3, 4, 5])),
    "map in chunks": lambda pool, function: list(pool.map(function, [3, 4, 5], chunksize=2)),
    "as an argument": lambda pool, function: pool.submit(echo, function).result(timeout=20),
}


@pytest.mark.parametrize("how", SUBMITTERS)
def test_it_is_refused_and_the_task_tells_why(pool, modules, how):
    module = modules.load(USE)
    with pytest.raises(RuntimeError, match=REFUSED) as caught:
        SUBMITTERS[how](pool, module.double)
    said = str(caught.value)
    line = modules.line_of(module.__name__, "    RESULTS = use()")
    path = modules.path(module.__name__)
    assert f'by the import of module {module.__name__!r} (file "{path}", line {line})' in said
    assert "while a worker was rebuilding a task (task " in said
    assert 'below `if __name__ == "__main__":`' in said
    assert module.__name__ in str(caught.value.__cause__), "the remote traceback leads to the import"

    workers = {worker.pid for worker in pool.workers()}
    assert pool.submit(calls.double, 2).result(timeout=20) == 4
    assert pool.stats().deaths == 0
    assert set(modules.importers(module.__name__)) <= workers | {os.getpid()}, "no pool was started"


def test_a_module_that_the_host_imports_as_well_starts_one_pool(modules):
    """Guards: 323 processes after four seconds."""
    name = modules.write("use()\n")
    done = run_python(
        f"import {name}", cwd=str(modules.path(name).parent), env={"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert f"RuntimeError: a pool was used by the import of module {name!r}" in done.stderr
    assert "concurrent.futures.process._RemoteTraceback" in done.stderr, "its own worker has told it"
    assert len(set(modules.importers(name))) <= 3, "the host and the workers of its pool"


def test_a_pool_may_be_made_and_be_used_by_the_running_task(pool, modules):
    module = modules.load("")
    assert pool.submit(module.use).result(timeout=20) == [2, 4]


def test_a_task_may_import_a_module_that_uses_a_pool_for_functions_of_others(pool, modules):
    name = modules.write("RESULTS = list(pool.map(abs, [-1, -2]))\n")
    assert pool.submit(eval, f"__import__({name!r}).RESULTS").result(timeout=20) == [1, 2]


def test_a_module_that_a_task_imports_goes_no_deeper_than_the_workers_of_its_own_pool(pool, modules):
    name = modules.write("use()\n")
    error = pool.submit(eval, f"__import__({name!r})").exception(timeout=20)
    assert type(error) is RuntimeError
    assert REFUSED in str(error)
    assert len(set(modules.importers(name))) <= 3, "the task's worker and the workers of its pool"
    assert pool.submit(calls.double, 2).result(timeout=20) == 4


def test_a_module_may_do_without_the_pool_that_it_is_refused(pool, modules):
    module = modules.load("try:\n    in_host or use()\nexcept RuntimeError:\n    pass\n")
    assert pool.submit(module.double, 3).result(timeout=20) == 6
    assert pool.submit(module.use).result(timeout=20) == [2, 4]


def test_an_initializer_of_such_a_module_breaks_the_pool_with_that_error(modules):
    module = modules.load(USE)
    with PidfdPoolExecutor(1, initializer=module.double, initargs=(1,)) as pool:
        with pytest.raises(PoolBroken, match=REFUSED) as caught:
            pool.submit(calls.double, 2).result(timeout=20)
        assert "while a worker was rebuilding its initializer (pid " in str(caught.value.__cause__)


def test_a_preload_of_such_a_module_fails_by_the_workers_of_the_modules_pool(modules):
    name = modules.write("use()\n")
    with PidfdPoolExecutor(1, preload=name) as pool:
        with pytest.raises(PoolBroken, match=REFUSED):
            pool.submit(calls.double, 2).result(timeout=20)
    assert len(set(modules.importers(name))) <= 3, "the template and the workers of the module's pool"


def test_a_preload_may_use_a_pool_for_functions_of_others(modules):
    name = modules.write("RESULTS = list(pool.map(abs, [-1, -2]))\n")
    with PidfdPoolExecutor(1, preload=name) as pool:
        assert pool.submit(eval, f"__import__({name!r}).RESULTS").result(timeout=20) == [1, 2]


class Worked:
    """Has a pool work when it is rebuilt."""

    def __setstate__(self, state):
        with PidfdPoolExecutor(1) as pool:
            pool.submit(abs, -1).result(timeout=20)


def test_an_argument_that_uses_a_pool_when_it_is_rebuilt_is_told_as_well(pool):
    worked = Worked()
    worked.value = 1
    error = pool.submit(echo, worked).exception(timeout=20)
    assert type(error) is RuntimeError
    assert f'a pool was used by Worked.__setstate__() (file "{__file__}"' in str(error)


# ---- threads and forks of an import ----------------------------------------------------------------------------

IN_A_THREAD = """
def use_and_tell():
    try:
        use()
    except RuntimeError as error:
        told.append(error)
told = []
if not in_host:
    thread = threading.Thread(target=use_and_tell)
    thread.start()
    thread.join()
    raise told[0]
"""


def test_a_thread_that_the_import_starts_is_part_of_it(pool, modules):
    module = modules.load(IN_A_THREAD)
    error = pool.submit(module.double, 3).exception(timeout=20)
    assert type(error) is RuntimeError
    assert "a pool was used by use() (file " in str(error)


BESIDE = """
def wait_for(path):
    deadline = time.monotonic() + 20
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.005)
if not in_host:
    open(__file__ + ".begun", "w").close()
    wait_for(__file__ + ".used")
"""


def use_in_a_thread(begun, used):
    """Start a thread that outlives the task, and uses a pool while the worker imports a module for the next one."""
    import threading

    def use():
        calls.wait_for(begun)
        with PidfdPoolExecutor(1) as pool:
            result = pool.submit(abs, -7).result(timeout=20)
        with open(f"{used}.part", "w") as file:
            file.write(str(result))
        os.rename(f"{used}.part", used)

    threading.Thread(target=use, daemon=True).start()


def test_a_thread_that_was_there_before_is_let_pass(modules, way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.submit(calls.double, 1).result()
        module = modules.load(BESIDE)
        path = str(modules.path(module.__name__))
        pool.submit(use_in_a_thread, f"{path}.begun", f"{path}.used").result(timeout=20)
        assert pool.submit(module.double, 3).result(timeout=30) == 6
        assert open(f"{path}.used").read() == "7"


IN_A_CHILD = """
if not in_host:
    child = os.fork()
    if not child:
        try:
            use()
        except BaseException as error:
            with open(__file__ + ".told", "w") as file:
                file.write(f"{type(error).__name__}: {error}")
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_a_process_that_the_import_forks_is_part_of_it(pool, modules):
    module = modules.load(IN_A_CHILD)
    assert pool.submit(module.double, 3).result(timeout=20) == 6
    told = open(f"{modules.path(module.__name__)}.told").read()
    assert told.startswith("RuntimeError: a pool was used by the import of module")
