"""The public names as tools show them: help, signatures, type hints, type checkers, editors, and reprs."""

from __future__ import annotations

import concurrent.futures
import inspect
import json
import os
import pydoc
import signal
import subprocess
import sys
import threading
import types
import typing
from pathlib import Path

import pytest

import pidfdpool
import pidfdpool.pidfd
from pidfdpool import Options, PidfdPoolExecutor, Policy, PoolOptions, TaskOptions, WorkerCrashed
from tests import calls
from tests.conditions import eventually, run_python

SAMPLES = Path(__file__).parent / "typing_samples"
PACKAGE = Path(pidfdpool.__file__).parent
PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (pidfdpool, pidfdpool.pidfd)
    for name in module.__all__
}
CALLABLE = [name for name, value in PUBLIC.items() if callable(value)]
NO_OPTION = set(PoolOptions.__annotations__) - set(TaskOptions.__annotations__)


# ---- signatures and help ---------------------------------------------------------------------------------------


def test_the_constructor_lists_every_option_with_its_default():
    for kind in (PidfdPoolExecutor, type("Derived", (PidfdPoolExecutor,), {})):
        parameters = inspect.signature(kind).parameters
        assert [*parameters][:5] == ["max_workers", "mp_context", "initializer", "initargs", "preload"]
        assert [*parameters][5:] == [*PoolOptions.__annotations__]
        for name in PoolOptions.__annotations__:
            assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
            assert parameters[name].default == inspect.signature(Policy).parameters[name].default, name
            assert parameters[name].annotation is not inspect.Parameter.empty


@pytest.mark.parametrize("kind", [PidfdPoolExecutor, Options])
def test_options_lists_every_option_that_can_be_refined(kind):
    signature = inspect.signature(kind.options)
    assert [*signature.parameters] == ["self", *TaskOptions.__annotations__]
    assert {repr(each.default) for each in [*signature.parameters.values()][1:]} == {"<unchanged>"}
    with PidfdPoolExecutor(1) as pool:
        bound = inspect.signature((pool if kind is PidfdPoolExecutor else pool.options()).options)
    assert [*bound.parameters] == [*TaskOptions.__annotations__]


def test_a_signature_is_a_signature_from_the_first_look_on():
    ran = run_python(
        """
        import sys
        from pidfdpool import PidfdPoolExecutor
        assert "inspect" not in sys.modules
        import inspect
        for function in (PidfdPoolExecutor.__init__, PidfdPoolExecutor.options):
            first = inspect.signature(function)
            assert isinstance(first, inspect.Signature)
            second = inspect.signature(function)
            assert type(second) is inspect.Signature
            assert first == second and second == first
            assert (str(first), repr(first), hash(first)) == (str(second), repr(second), hash(second))
            assert first.replace(return_annotation=int).return_annotation is int
        """
    )
    assert (ran.stderr, ran.returncode) == ("", 0)


def test_a_subclass_with_a_constructor_of_its_own_shows_that():
    class Derived(PidfdPoolExecutor):
        def __init__(self, name: str) -> None:
            super().__init__(1)

    assert [*inspect.signature(Derived).parameters] == ["name"]


def test_help_lists_every_option():
    text = pydoc.plain(pydoc.render_doc(PidfdPoolExecutor))
    for name in PoolOptions.__annotations__:
        assert f"{name}: " in text, name
    assert "retries: int = 0" in text
    assert "retries: int = <unchanged>" in text


@pytest.mark.parametrize("kind", [Policy, pidfdpool.Death, pidfdpool.Stats, pidfdpool.WorkerInfo])
def test_the_signature_of_a_record_is_there_before_its_first_object(kind):
    ran = run_python(
        f"import inspect, pidfdpool; print(*inspect.signature(pidfdpool.{kind.__name__}).parameters)",
    )
    assert ran.stderr == ""
    assert ran.stdout.split() == [*kind.__match_args__]


# ---- type hints --------------------------------------------------------------------------------------------------


def with_methods(name, value):
    yield name, value
    if isinstance(value, type):
        for attribute in dir(value):
            if attribute.startswith("_") and not attribute.endswith("__"):
                continue
            method = inspect.getattr_static(value, attribute)
            method = getattr(method, "fget", None) or getattr(method, "__func__", method)
            if isinstance(method, types.FunctionType) and str(method.__module__).startswith("pidfdpool"):
                yield f"{name}.{attribute}", method


@pytest.mark.parametrize("name", CALLABLE)
def test_the_annotations_of_every_public_name_and_method_can_be_resolved(name):
    for whole, value in with_methods(name, PUBLIC[name]):
        hints = typing.get_type_hints(value)
        assert not [hint for hint in hints.values() if isinstance(hint, str | typing.ForwardRef)], whole
        if isinstance(value, types.FunctionType):
            evaluated = inspect.signature(value, eval_str=True)
            assert not [each for each in evaluated.parameters.values() if isinstance(each.annotation, str)], whole
            assert not isinstance(evaluated.return_annotation, str), whole


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotationlib came with Python 3.14")
@pytest.mark.parametrize("name", CALLABLE)
def test_annotationlib_reads_the_annotations_of_every_public_name_and_method(name):
    import annotationlib

    for whole, value in with_methods(name, PUBLIC[name]):
        evaluated = annotationlib.get_annotations(value, eval_str=True)
        assert not [each for each in evaluated.values() if isinstance(each, str)], whole
        for form in (annotationlib.Format.STRING, annotationlib.Format.FORWARDREF):
            assert evaluated.keys() == annotationlib.get_annotations(value, format=form).keys(), whole


def test_the_annotations_of_handles_name_the_types_themselves():
    hints = typing.get_type_hints(pidfdpool.pidfd.Pidfd.open)
    assert hints == {"pid": int, "return": typing.Self}
    assert typing.get_type_hints(pidfdpool.pidfd.ExitStatus)["UNKNOWN"] == typing.ClassVar[pidfdpool.pidfd.ExitStatus]
    assert inspect.signature(pidfdpool.pidfd.Pidfd.__enter__, eval_str=True).return_annotation is typing.Self


def test_the_typed_dictionaries_of_options_make_dictionaries():
    rules = TaskOptions(timeout=3, retries=1)
    assert rules == {"timeout": 3, "retries": 1}
    assert type(rules) is dict
    assert typing.get_type_hints(PoolOptions)["max_pending"] == (int | None)
    assert NO_OPTION

    class More(TaskOptions):
        colour: str

    assert More(colour="red") == {"colour": "red"}
    assert "timeout" in More.__annotations__


# ---- type checkers and editors -----------------------------------------------------------------------------------


def test_programs_that_use_the_pool_are_typed():
    pytest.importorskip("mypy")
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *map(str, sorted(SAMPLES.glob("*.py")))],
        cwd=SAMPLES.parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


VERIFY_TYPES = ("--verifytypes", "pidfdpool", "--ignoreexternal", "--outputjson")


def test_every_name_has_a_type_without_inference(tmp_path):
    """As pyright counts it. It takes every module for public, so the inside of the package is held to the same."""
    pytest.importorskip("pyright")
    ran = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, *VERIFY_TYPES],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},  # an editable installation has no py.typed for pyright
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.stdout.startswith("{"), ran.stdout + ran.stderr
    found = json.loads(ran.stdout)["typeCompleteness"]
    unclear = [
        f"{symbol['name']}: {[each['message'] for each in symbol['diagnostics']]}"
        for symbol in found["symbols"]
        if symbol["isExported"] and (symbol["isTypeAmbiguous"] or not symbol["isTypeKnown"])
    ]
    assert unclear == []
    assert found["completenessScore"] == 1


COMPLETED = {
    "PidfdPoolExecutor(4, retr": {"retries=", "retry_on="},
    "PidfdPoolExecutor(max_w": {"max_workers="},
    "pool.sub": {"submit", "subscribe"},
    "pool.options(timeout=3).ma": {"map", "map_unordered"},
    "pool.options(": {f"{name}=" for name in TaskOptions.__annotations__},
    "pool.options(timeout=3).options(retr": {"retries=", "retry_on=", "retry_backoff=", "retry_backoff_limit="},
    "pool.submit(int, '1').": {"result", "exception", "cancel", "kill", "worker", "attempt", "started_at"},
    "pool.submit(int, '1').result().bit_l": {"bit_length"},
    "pidfdpool.Worker": {"WorkerCrashed", "WorkerInfo", "WorkerName"},
    "pidfdpool.pidfd.Exit": {"ExitStatus"},
    "pidfdpool.pidfd.Pidfd.open(1).exit_": {"exit_status"},
    "crash.exit_st": {"exit_status"},
}


@pytest.mark.parametrize("code", COMPLETED)
def test_editors_complete_options_and_methods(code):
    jedi = pytest.importorskip("jedi")
    lines = [
        "import pidfdpool, pidfdpool.pidfd",
        "from pidfdpool import PidfdPoolExecutor, WorkerCrashed",
        "pool = PidfdPoolExecutor(4)",
        "crash = WorkerCrashed('', task='', task_id=1, attempt=1)",
        code,
    ]
    script = jedi.Script("\n".join(lines), environment=jedi.InterpreterEnvironment())  # starts no process
    found = {each.name for each in script.complete(len(lines), len(code))}
    assert found >= COMPLETED[code]
    if code.rpartition(".")[2].startswith("options("):
        assert found == COMPLETED[code], "nothing else is accepted"
        (signature,) = script.get_signatures(len(lines), len(code))
        assert [each.name for each in signature.params] == [*TaskOptions.__annotations__]


# ---- what a view is ------------------------------------------------------------------------------------------------


def test_a_view_is_an_executor_that_does_not_own_the_pool():
    with PidfdPoolExecutor(1) as pool:
        view = pool.options(timeout=60)
        assert isinstance(view, concurrent.futures.Executor)
        with view as same:
            assert same is view
            assert same.submit(calls.double, 2).result() == 4
        view.shutdown(wait=True, cancel_futures=True)
        assert view.submit(calls.double, 3).result() == 6, "the pool goes on"


# ---- reprs ---------------------------------------------------------------------------------------------------------


def test_the_repr_of_a_pool_tells_state_workers_and_tasks(tmp_path):
    pool = PidfdPoolExecutor(2)
    assert repr(pool) == "<PidfdPoolExecutor not started, 0 of 2 workers busy, 0 tasks pending>"
    futures = [pool.submit(calls.wait_for, str(tmp_path / "go")) for _ in range(3)]
    working = "<PidfdPoolExecutor open, 2 of 2 workers busy, 3 tasks pending>"
    eventually(lambda: repr(pool) == working, "both workers are busy")
    pool.shutdown(wait=False)
    assert repr(pool) == "<PidfdPoolExecutor shut down, 2 of 2 workers busy, 3 tasks pending>"
    (tmp_path / "go").touch()
    for future in futures:
        future.result()
    pool.shutdown()
    assert repr(pool) == "<PidfdPoolExecutor shut down, 0 of 2 workers busy, 0 tasks pending>"


def test_the_repr_of_a_broken_pool_says_so():
    with PidfdPoolExecutor(1, on_crash="break") as pool:
        with pytest.raises(WorkerCrashed):
            pool.submit(os.kill, 0, signal.SIGKILL).result()
        eventually(lambda: repr(pool).startswith("<PidfdPoolExecutor broken, "), "the pool is broken")


def test_the_repr_of_a_view_tells_what_differs():
    with PidfdPoolExecutor(1, retries=2, max_pending=5) as pool:
        view = pool.options(timeout=3, retries=2, retry_on=ValueError)
        assert repr(view) == f"<options(timeout=3, retry_on=(<class 'ValueError'>,)) of {pool!r}>"


def test_the_repr_of_a_future_tells_state_task_and_worker(tmp_path):
    with PidfdPoolExecutor(1) as pool:
        future, waiting = (pool.submit(calls.wait_for, str(tmp_path / "go")) for _ in range(2))
        eventually(lambda: future.running() and future.worker and future.worker.pid, "a worker has the task")
        worker = f"attempt 1 in worker 0 (pid {future.worker.pid})"
        task = f"task 1 ({calls.wait_for.__module__}.wait_for)"
        assert repr(future) == f"<Future at {id(future):#x} state=running, {task}, {worker}>"
        assert repr(waiting).startswith(f"<Future at {id(waiting):#x} state=pending, task 2 (")
        waiting.cancel()
        assert repr(waiting) == f"<Future at {id(waiting):#x} state=cancelled, task 2>"
        (tmp_path / "go").touch()
        kind = type(future.result()).__name__
        assert repr(future) == f"<Future at {id(future):#x} state=finished returned {kind}, task 1, {worker}>"
        failed = pool.submit(calls.double, None)
        assert failed.exception() is not None
        assert "state=finished raised TypeError, task 3, attempt 1 in worker 0" in repr(failed)


def test_no_repr_raises_or_waits():
    """Not of what is half made, nor while others hold the locks."""

    class Unspeakable(type):
        def __eq__(cls, other):
            raise RuntimeError("no")

        def __repr__(cls):
            raise RuntimeError("no")

        __hash__ = type.__hash__

    assert repr(PidfdPoolExecutor.__new__(PidfdPoolExecutor)) == "<PidfdPoolExecutor not initialized>"
    assert repr(Options.__new__(Options)) == "<Options not initialized>"
    assert "state=pending>" in repr(pidfdpool.Future())
    with PidfdPoolExecutor(1) as pool:
        view = pool.options(retry_on=Unspeakable("Odd", (Exception,), {}))
        assert "retry_on=" in repr(view)
        future = pool.submit(calls.double, 1)
        texts = []
        with pool._pool.core.lock, pool._own.lock, future._condition:
            other = threading.Thread(target=lambda: texts.extend(map(repr, (pool, view, future))))
            other.start()
            other.join(30)
            assert len(texts) == 3
        assert future.result() == 2
