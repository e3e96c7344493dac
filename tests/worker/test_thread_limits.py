"""threads_per_worker: workers' numerical libraries use as many threads, however and whenever they were loaded."""

from __future__ import annotations

import os
import sys

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.worker import thread_limits
from pidfdpool.worker.thread_limits import VARIABLES
from tests.conditions import run_python

pytest.importorskip("threadpoolctl")
if (os.cpu_count() or 1) < 2:
    pytest.skip("OpenBLAS uses no more threads than there are processors", allow_module_level=True)


def variables() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in VARIABLES}


def threads_of_numpy() -> list[int]:
    """Return how many threads the BLAS of numpy would use, and have it use them."""
    import numpy
    from threadpoolctl import threadpool_info

    square = numpy.ones((200, 200))
    assert (square @ square)[0, 0] == 200
    return [found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"]


def loaded_and_variables() -> tuple[bool, dict[str, str | None], list[int]]:
    return "numpy" in sys.modules, variables(), threads_of_numpy()


def load_numpy() -> None:
    """Load it in the template, and tell the workers what the variables were then."""
    import numpy

    numpy.seen_variables = variables()


def seen_by_preload() -> tuple[dict[str, str | None], list[int]]:
    import numpy

    return numpy.seen_variables, threads_of_numpy()


# A host with many CPUs, as far as OpenBLAS can be told, and what it sees before and after.
HOST = """
import os, sys
os.environ["OPENBLAS_NUM_THREADS"] = "2"
{before}
from pidfdpool import PidfdPoolExecutor
from tests.worker import test_thread_limits as these

if __name__ == "__main__":
    before = dict(os.environ)
    with PidfdPoolExecutor(2, mp_context={way!r}, {options}) as pool:
        found = pool.submit({task}).result()
    assert dict(os.environ) == before, "the host's environment is as it was"
    {after}
    print(repr(found))
"""


def host(way: str, task: str, options: str, before: str = "", after: str = "pass") -> object:
    ran = run_python(HOST.format(way=way, task=task, options=options, before=before, after=after))
    assert ran.stderr == ""
    return eval(ran.stdout)


def test_variables_are_set_before_a_task_loads_the_library(way):
    loaded, found, threads = host(way, "these.loaded_and_variables", "threads_per_worker=1")
    assert not loaded
    assert found == dict.fromkeys(VARIABLES, "1")
    assert threads == [1]


def test_variables_are_set_before_the_preload_loads_the_library(way):
    options = "threads_per_worker=1, preload=these.load_numpy"
    found, threads = host(way, "these.seen_by_preload", options)
    assert found == dict.fromkeys(VARIABLES, "1")
    assert threads == [1]
    assert host(way, "these.threads_of_numpy", "threads_per_worker=1, preload='numpy'") == [1]


def test_what_the_host_had_loaded_is_limited_in_its_fork():
    """The library has read its variable long ago."""
    before = "import numpy\nfrom tests.worker.test_thread_limits import threads_of_numpy\nhad = threads_of_numpy()"
    after = "assert had == these.threads_of_numpy() == [2], 'and so it is in the host'"
    assert host("fork", "these.threads_of_numpy", "threads_per_worker=1", before, after) == [1]


def test_without_the_option_nothing_is_set(way):
    _, found, threads = host(way, "these.loaded_and_variables", "")
    assert found == {**dict.fromkeys(VARIABLES), "OPENBLAS_NUM_THREADS": "2"}
    assert threads == [2]


def test_what_a_task_starts_has_the_variables_too():
    task = "__import__('subprocess').check_output, ['sh', '-c', 'echo $OMP_NUM_THREADS']"
    assert host("spawn", task, "threads_per_worker=7") == b"7\n"


def test_a_replaced_worker_and_one_of_a_new_template_have_them(way):
    with PidfdPoolExecutor(1, mp_context=way, threads_per_worker=5, max_tasks_per_child=1) as pool:
        found = {pool.submit(os.getenv, "OMP_NUM_THREADS").result() for _ in range(3)}
    assert found == {"5"}


def test_where_threadpoolctl_is_not_installed_the_variables_are_set_all_the_same(monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    monkeypatch.setitem(sys.modules, "numpy", os)
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    thread_limits.apply(3)
    assert os.environ == dict.fromkeys(VARIABLES, "3")


def test_threadpoolctl_is_not_loaded_where_there_is_nothing_to_limit():
    code = "import sys; from pidfdpool.worker import thread_limits; thread_limits.apply(1)"
    assert run_python(f"{code}; print('threadpoolctl' in sys.modules)").stdout == "False\n"


def test_numba_which_refuses_another_number_later_is_not_told_one(monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setitem(sys.modules, "numba", os)
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    thread_limits.apply(3)
    assert set(VARIABLES) - set(os.environ) == {"NUMBA_NUM_THREADS"}


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_it_is_a_positive_integer_or_none(value, error):
    with pytest.raises(error, match=f"threads_per_worker must be .*, not {value}"):
        PidfdPoolExecutor(1, threads_per_worker=value)


@pytest.mark.parametrize("loaded", [[], ["numpy"], ["xgboost"]])
def test_loaded_libraries_are_limited_if_there_are_any(monkeypatch, loaded):
    found = []
    monkeypatch.setattr(os, "environ", {})
    for name in thread_limits._WITH_THREADS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in loaded:
        monkeypatch.setitem(sys.modules, name, os)
    monkeypatch.setattr("threadpoolctl.threadpool_limits", lambda *, limits: found.append(limits))
    thread_limits.apply(3)
    assert found == [3] * len(loaded)
