"""Tests that use a pool, under the runners of tests: what their modules define goes to workers."""

from __future__ import annotations

import sys

import pytest

from tests.conditions import marked
from tests.hosts.interactive import last_error
from tests.hosts.observing import expect, expect_nothing_left, run
from tests.hosts.programs import session

PYTEST = "pytest"

TESTS = f"""
import dataclasses
import pytest
{session.FUNCTIONS[0]}
{session.CLASSES[0]}
{session.EXCEPTIONS[0]}

@pytest.fixture
def pool():
    from tests.hosts.programs.contender import ProcessPoolExecutor
    with ProcessPoolExecutor(2) as pool:
        yield pool

@pytest.fixture
def savings():
    return Savings(5)

def test_functions(pool):
    assert list(pool.map(scaled, range(4))) == [0, 6, 12, 18]
    assert pool.submit(is_even, 10).result(20) is True

def test_classes(pool, savings):
    paid = pool.submit(savings.pay, 3).result(20)
    assert type(paid) is Savings
    assert paid.balance == 11
    assert pool.submit(same, Colour.RED).result(20) is Colour.RED
    assert pool.submit(swap, Pair(1, 2)).result(20) == Pair(2, 1)

def test_exceptions(pool):
    with pytest.raises(Refused) as caught:
        pool.submit(refuse).result(20)
    assert caught.value.code == 7

def test_of_conftest(pool, tripled):
    assert pool.submit(tripled, 3).result(20) == 9

def test_what_a_task_prints_is_captured(pool, capfd):
    pool.submit(print, "said in a worker").result(20)
    assert capfd.readouterr().out == "said in a worker\\n"
"""
CONFTEST = """
import pytest

def triple(number):
    return 3 * number

@pytest.fixture
def tripled():
    return triple
"""


@pytest.mark.costly_table
@pytest.mark.case(PYTEST, "tests that give functions, classes and fixtures of their module to workers")
@pytest.mark.parametrize("mode", ["prepend", "append", "importlib"])
@pytest.mark.parametrize("layout", ["in a folder", "in a package"])
def test_tests_under_pytest(contender, mode, layout, tmp_path):
    folder = tmp_path / "checks" / "deep"
    folder.mkdir(parents=True)
    (folder / "test_things.py").write_text(TESTS)
    (folder / "conftest.py").write_text(CONFTEST)
    if layout == "in a package":
        (folder / "__init__.py").touch()
        (folder.parent / "__init__.py").touch()
    env = {**marked("pytest"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    # Run as `pytest` and not as `python -m pytest`, which would make the current directory importable.
    command = [sys.executable, "-c", "import sys, pytest; sys.path.remove(''); sys.exit(pytest.main())"]
    arguments = ["-q", "-p", "no:cacheprovider", f"--import-mode={mode}", "--rootdir", str(tmp_path)]
    done = run(contender, [*command, *arguments], cwd=tmp_path, env=env)
    said = f"{done.stdout}\n{done.stderr}"
    expect(done.returncode == 0, last_error(said) or "a test fails", said)
    expect("5 passed" in said, "tests are not run", said)
    expect_nothing_left(env)


UNITTEST = f"""
import unittest
{session.FUNCTIONS[0]}
{session.CLASSES[0]}
{session.EXCEPTIONS[0]}
from tests.hosts.programs.contender import ProcessPoolExecutor

class Tests(unittest.TestCase):
    def setUp(self):
        self.pool = self.enterContext(ProcessPoolExecutor(2))
    def test_functions(self):
        self.assertEqual(list(self.pool.map(scaled, range(4))), [0, 6, 12, 18])
    def test_classes(self):
        paid = self.pool.submit(Savings(5).pay, 3).result(20)
        self.assertIs(type(paid), Savings)
    def test_exceptions(self):
        with self.assertRaises(Refused):
            self.pool.submit(refuse).result(20)

if __name__ == "__main__":
    unittest.main()
"""


@pytest.mark.case("unittest", "tests that give functions and classes of their module to workers")
@pytest.mark.parametrize(
    "command", ["python -m unittest test_things", "python -m unittest discover", "python test_things.py"]
)
def test_tests_under_unittest(contender, command, tmp_path):
    (tmp_path / "test_things.py").write_text(UNITTEST)
    env = marked("unittest")
    done = run(contender, [sys.executable, *command.split()[1:]], cwd=tmp_path, env=env)
    said = f"{done.stdout}\n{done.stderr}"
    expect(done.returncode == 0, last_error(said) or "a test fails", said)
    expect("Ran 3 tests" in said, "tests are not run", said)
    expect_nothing_left(env)


EXAMPLES = """
def double(number):
    '''Double it.

    >>> from tests.hosts.programs.contender import ProcessPoolExecutor
    >>> def triple(number):
    ...     return number + double(number)
    >>> class Kept:
    ...     def __init__(self, what):
    ...         self.what = what
    >>> class Refused(Exception):
    ...     pass
    >>> def refuse():
    ...     raise Refused("no")
    >>> with ProcessPoolExecutor(2) as pool:
    ...     list(pool.map(double, range(4)))
    ...     list(pool.map(triple, range(4)))
    ...     type(pool.submit(Kept, 1).result(20)) is Kept
    ...     isinstance(pool.submit(refuse).exception(20), Refused)
    [0, 2, 4, 6]
    [0, 3, 6, 9]
    True
    True
    '''
    return 2 * number
"""


@pytest.mark.case("doctest", "examples that define functions and classes and give them to workers")
@pytest.mark.parametrize("command", ["python -m doctest things.py", "pytest --doctest-modules"])
def test_examples_under_doctest(contender, command, tmp_path):
    (tmp_path / "things.py").write_text(EXAMPLES)
    env = {**marked("doctest"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    arguments = command.split()[1:]
    if not command.startswith("python"):
        arguments = ["-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), *arguments, "things.py"]
    done = run(contender, [sys.executable, *arguments], cwd=tmp_path, env=env)
    said = f"{done.stdout}\n{done.stderr}"
    # doctest indents what an example has raised.
    expect(done.returncode == 0, last_error(said.replace("\n    ", "\n")) or "an example fails", said)
    expect_nothing_left(env)
