"""The backend "pidfdpool" of joblib, used as joblib's and scikit-learn's users would."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import pidfdpool
from tests.conditions import eventually

joblib = pytest.importorskip("joblib")
pytest.importorskip("pidfdpool.joblib")

LONG = 90.0


@pytest.fixture(autouse=True)
def end_of_pools(nothing_is_left):
    """End the pools that calls of joblib share: nothing is to be left of a test."""
    yield
    from pidfdpool.integrations.joblib_backend import pools

    while pools._pools:
        pools._pools.pop()[1].kill_workers()


def in_parallel(function, items, **settings):
    settings = {"n_jobs": 2, "backend": "pidfdpool", **settings}
    return joblib.Parallel(**settings)(joblib.delayed(function)(item) for item in items)


def square(value):
    return value * value


def worker(_):
    return os.getpid()


def die_for_three(value):
    if value == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def fail_for_three(value):
    if value == 3:
        raise KeyError(value)
    return value


def variables(_):
    return os.environ["OMP_NUM_THREADS"]


def nest(value):
    inner = joblib.Parallel(n_jobs=2)(joblib.delayed(threading.get_ident)() for _ in range(4))
    return value, len(inner), os.getpid()


def test_it_is_chosen_by_name():
    with joblib.parallel_config("pidfdpool", n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(square)(value) for value in range(300)) == [v * v for v in range(300)]
    assert os.getpid() not in in_parallel(worker, range(4))


@pytest.mark.parametrize("how", ["generator", "generator_unordered"])
def test_results_come_as_a_generator(how):
    results = in_parallel(square, range(20), return_as=how)
    assert sorted(results) == [value * value for value in range(20)]


def test_workers_are_kept_for_the_next_call():
    workers = {*in_parallel(worker, range(40)), *in_parallel(worker, range(40)), *in_parallel(worker, range(40))}
    assert len(workers) <= 2


def test_more_workers_are_added_when_they_are_asked_for():
    in_parallel(square, range(4))
    seen = set(in_parallel(lambda _: (time.sleep(0.2), os.getpid())[1], range(8), n_jobs=4, batch_size=1))
    assert 2 < len(seen) <= 4


def test_there_are_no_more_workers_than_asked_for_afterwards():
    in_parallel(time.sleep, [0.1] * 8, n_jobs=4, batch_size=1)
    seen = set(in_parallel(lambda _: (time.sleep(0.05), os.getpid())[1], range(8), n_jobs=2, batch_size=1))
    assert len(seen) <= 2


def test_all_cpus_are_minus_one():
    with joblib.parallel_config("pidfdpool"):
        assert joblib.effective_n_jobs(-1) == joblib.cpu_count()
        with pytest.raises(ValueError, match="n_jobs == 0"):
            joblib.effective_n_jobs(0)


def test_an_exception_ends_the_call_and_not_the_pool():
    with pytest.raises(KeyError):
        in_parallel(fail_for_three, range(100))
    assert in_parallel(square, [3]) == [9]


def test_a_death_tells_how_and_the_pool_goes_on():
    with pytest.raises(pidfdpool.WorkerCrashed, match="SIGKILL"):
        in_parallel(die_for_three, range(8))
    assert in_parallel(square, range(3)) == [0, 1, 4]


def test_a_timeout_ends_what_runs():
    from pidfdpool.integrations.joblib_backend import pools

    with pytest.raises(multiprocessing.TimeoutError):
        in_parallel(time.sleep, [LONG, LONG], timeout=0.3)
    eventually(lambda: pools._pools[0][1].stats().running == 0, "nothing of it runs")
    with pytest.raises(pidfdpool.TaskTimeout):
        with joblib.parallel_config("pidfdpool", n_jobs=2, timeout=0.2):
            joblib.Parallel()(joblib.delayed(time.sleep)(LONG) for _ in range(2))


def test_an_option_that_does_not_exist_is_named():
    with pytest.raises(TypeError, match="max_task_per_child"):
        with joblib.parallel_config("pidfdpool", n_jobs=2, max_task_per_child=3):
            joblib.Parallel()(joblib.delayed(square)(value) for value in range(3))


def test_threads_of_libraries_are_limited():
    assert set(in_parallel(variables, range(2))) == {str(max(1, joblib.cpu_count() // 2))}
    with joblib.parallel_config("pidfdpool", n_jobs=2, inner_max_num_threads=3):
        assert joblib.Parallel()(joblib.delayed(variables)(value) for value in range(2)) == ["3", "3"]


def test_calls_in_workers_run_in_threads():
    outer = in_parallel(nest, range(4))
    assert [value for value, _, _ in outer] == [0, 1, 2, 3]
    assert all(count == 4 for _, count, _ in outer)


def test_large_arrays_arrive_equal():
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(2_000_000, dtype=float)
    sums = joblib.Parallel(n_jobs=2, backend="pidfdpool")(joblib.delayed(numpy.sum)(array) for _ in range(4))
    assert sums == [array.sum()] * 4


def test_it_serves_several_threads_at_once():
    found = {}

    def run(number):
        found[number] = in_parallel(square, range(number, number + 50))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [value * value for value in range(number, number + 50)] for number in range(4)}


class TestScikitLearn:
    @pytest.fixture
    def data(self):
        datasets = pytest.importorskip("sklearn.datasets")
        return datasets.make_classification(300, 8, random_state=5)

    def both(self, compute):
        alone = compute(1)
        with joblib.parallel_config("pidfdpool", n_jobs=2):
            return compute(2), alone

    def test_grid_search(self, data):
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV

        def search(jobs):
            found = GridSearchCV(LogisticRegression(), {"C": [0.1, 1, 10]}, n_jobs=jobs).fit(*data)
            return found.best_params_, found.cv_results_["mean_test_score"].tolist()

        ours, alone = self.both(search)
        assert ours == alone

    def test_cross_validation(self, data):
        from sklearn.model_selection import cross_val_score
        from sklearn.tree import DecisionTreeClassifier

        ours, alone = self.both(
            lambda jobs: cross_val_score(DecisionTreeClassifier(random_state=5), *data, n_jobs=jobs).tolist()
        )
        assert ours == alone

    def test_a_random_forest(self, data):
        from sklearn.ensemble import RandomForestClassifier

        ours, alone = self.both(
            lambda jobs: (
                RandomForestClassifier(20, random_state=5, n_jobs=jobs).fit(*data).predict_proba(data[0]).tolist()
            )
        )
        assert ours == alone


LATE = """
import joblib.parallel
from joblib.parallel import get_active_backend
backend, workers = get_active_backend()
nested = joblib.Parallel()(joblib.delayed(abs)(number) for number in (-1, -2))
made = type(backend).__name__, nested
"""


def run_late(_):
    """Load joblib as late as possible, and tell how it is configured for calls within the batch."""
    namespace = {}
    exec(LATE, namespace)
    return namespace["made"]


def test_a_worker_does_not_load_joblib_for_calls_that_do_not_use_it():
    assert in_parallel(eval, ["'joblib' in __import__('sys').modules"] * 4) == [False] * 4


def test_nested_calls_are_threads_also_where_joblib_is_loaded_by_a_call():
    run_late.__module__ = "__main__"  # by value: this module would load joblib before the batch begins
    try:
        assert in_parallel(run_late, range(4)) == [("ThreadingBackend", [1, 2])] * 4
    finally:
        run_late.__module__ = __name__


def test_a_batch_leaves_nothing_configured_and_no_hook():
    program = """
import pickle, sys
from pidfdpool.integrations.joblib_backend.batches import Batch
finders = list(sys.meta_path)
from joblib._parallel_backends import ThreadingBackend
nested = pickle.dumps({"backend": ThreadingBackend(nesting_level=1), "n_jobs": 3})
for name in [name for name in sys.modules if name.partition(".")[0] == "joblib"]:
    del sys.modules[name]
def call():
    import joblib.parallel
    assert sys.meta_path == finders, "it waits no longer than it has to"
    return type(joblib.parallel.get_active_backend()[0]).__name__, joblib.parallel.get_active_backend()[1]
def fail():
    raise KeyError("the batch ends")
try:
    Batch([(fail, (), {})], nested)()
except KeyError:
    assert sys.meta_path == finders and "joblib" not in sys.modules
for _ in range(2):  # the second time, joblib is loaded
    print(*Batch([(call, (), {})], nested)()[0])
    assert sys.meta_path == finders
    print(type(sys.modules["joblib.parallel"].get_active_backend()[0]).__name__)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=LONG)
    assert ended.stdout.split() == ["ThreadingBackend", "3", "LokyBackend"] * 2, ended.stderr
