"""The executor on a cluster: calls, errors, and its end."""

from __future__ import annotations

import concurrent.futures
import sys
import threading
import time
import warnings

import pytest

import pidfdpool
from tests.clients import dask_work as work
from tests.conditions import eventually, in_forked_child

distributed = pytest.importorskip("distributed")
dask_door = pytest.importorskip("pidfdpool.dask")

LONG = 90.0


@pytest.fixture(autouse=True)
def nothing_is_left(no_pool_is_left):
    """Leave the cluster itself as it is, with its threads and connections."""


class TestCalls:
    def test_a_call_returns_what_it_returns(self, executor):
        future = executor.submit(work.square, 7)
        assert isinstance(future, concurrent.futures.Future)
        assert future.result(LONG) == 49
        assert (future.attempt, future.done(), future.running()) == (1, True, False)
        assert future.node.startswith("tcp://")
        assert future.worker.pid not in work.nodes(executor._submission.client).values()

    def test_it_runs_in_a_worker_of_the_nodes_pool(self, executor, client):
        pid, parent = executor.submit(work.pids).result(LONG)
        assert not {pid, parent} & set(work.nodes(client).values())

    def test_lambdas_closures_and_keywords_travel(self, executor):
        factor = 3
        assert executor.submit(lambda value, *, plus: value * factor + plus, 2, plus=1).result(LONG) == 7

    def test_arguments_are_a_snapshot(self, executor):
        numpy = pytest.importorskip("numpy")
        array, small = numpy.arange(100_000), [1]
        futures = executor.submit(numpy.sum, array), executor.submit(sum, small)
        array[:] = 0
        small.append(5)
        assert [future.result(LONG) for future in futures] == [sum(range(100_000)), 1]

    def test_large_arrays_come_back_writable(self, executor):
        numpy = pytest.importorskip("numpy")
        result = executor.submit(numpy.arange, 300_000).result(LONG)
        result[0] = 5
        assert result[:3].tolist() == [5, 1, 2]

    def test_exceptions_come_with_their_traceback(self, executor):
        with pytest.raises(work.Own, match="3") as caught:
            executor.submit(work.fail_for_three, 3).result(LONG)
        assert "in fail_for_three" in str(caught.value.__cause__)

    def test_system_exit_is_the_calls_own(self, executor):
        with pytest.raises(SystemExit):
            executor.submit(sys.exit, 3).result(LONG)
        assert executor.submit(work.square, 2).result(LONG) == 4

    def test_what_does_not_pickle_is_in_the_future(self, executor):
        with pytest.raises(pidfdpool.CallNotSendable, match=r"dask_work\.square was not sent.*lock"):
            executor.submit(work.square, threading.Lock()).result(LONG)

    def test_a_result_that_does_not_pickle_fails_its_call(self, executor):
        with pytest.raises(TypeError, match="generator") as caught:
            executor.submit(work.unpicklable, 1).result(LONG)
        assert "cannot be pickled" in caught.value.__notes__[0]

    def test_a_call_that_dies_when_it_is_rebuilt_costs_itself(self, executor, client):
        before = work.nodes(client)
        with pytest.raises(pidfdpool.WorkerCrashed):
            executor.submit(work.square, work.Unloadable()).result(LONG)
        assert work.nodes(client) == before

    def test_a_missing_module_says_what_helps(self, executor, tmp_path, monkeypatch):
        (tmp_path / "only_here.py").write_text("def double(value):\n    return value * 2\n")
        monkeypatch.syspath_prepend(tmp_path)
        import only_here

        with pytest.raises(ModuleNotFoundError, match="only_here") as caught:
            executor.submit(only_here.double, 2).result(LONG)
        assert "register_pickle_by_value" in caught.value.__notes__[0]

    def test_it_tells_how_many_calls_run_at_a_time(self, executor):
        assert executor._max_workers == executor.options(timeout=5)._max_workers == 2

    def test_a_burst_is_answered_call_by_call(self, executor):
        futures = [executor.submit(work.square, value) for value in range(300)]
        assert [future.result(LONG) for future in futures] == [value * value for value in range(300)]


class TestErrors:
    def test_a_death_names_node_and_cause(self, executor, client):
        before = work.nodes(client)
        future = executor.submit(work.die_for_each_50th, 7)
        with pytest.raises(
            pidfdpool.WorkerCrashed, match=r"on the node tcp://.*die_for_each_50th.*SIGKILL"
        ) as caught:
            future.result(LONG)
        assert caught.value.node in before
        assert caught.value.task == "tests.clients.dask_work.die_for_each_50th"
        assert caught.value.exit_status.signal == 9
        assert work.nodes(client) == before, "the dask worker went on"

    def test_a_timeout_ends_the_call_and_not_the_node(self, executor):
        with pytest.raises(pidfdpool.TaskTimeout, match="on the node") as caught:
            executor.options(timeout=0.2).submit(time.sleep, LONG).result(LONG)
        assert caught.value.node is not None

    def test_memory_is_limited(self, client):
        with dask_door.DaskExecutor(client, hard_memory_per_child=200_000_000, memory_interval=0.02) as executor:
            with pytest.raises(pidfdpool.MemoryExceeded):
                executor.submit(lambda: (bytearray(400_000_000), time.sleep(LONG))).result(LONG)

    def test_retries_are_made_on_the_node(self, executor):
        patient = executor.options(retries=3, retry_on=(work.Own,), retry_backoff=0)
        future = patient.submit(work.attempt_that_succeeds, 3)
        assert future.result(LONG) == 3
        assert future.attempt == 3
        with pytest.raises(work.Own, match="2"):
            executor.options(retries=1, retry_on=work.Own, retry_backoff=0).submit(
                work.attempt_that_succeeds, 5
            ).result(LONG)

    def test_killing_twenty_of_a_thousand_costs_twenty(self, executor, client):
        before = work.nodes(client)
        outcomes = list(executor.map(work.die_for_each_50th, range(1000), return_exceptions=True))
        assert [outcome.index for outcome in outcomes] == list(range(1000))
        failed = [outcome for outcome in outcomes if not outcome.ok]
        assert [outcome.index for outcome in failed] == [value for value in range(1000) if value % 50 == 7]
        assert {type(outcome.error) for outcome in failed} == {pidfdpool.WorkerCrashed}
        assert "item 57 of map" in str(failed[1].error)
        assert [outcome.value for outcome in outcomes if outcome.ok] == [v for v in range(1000) if v % 50 != 7]
        assert work.nodes(client) == before


class TestEnding:
    def test_a_running_call_can_be_killed_and_not_cancelled(self, executor):
        future = executor.submit(time.sleep, LONG)
        eventually(future.running, "it runs")
        assert not future.cancel()
        assert "running" in repr(future)
        assert future.kill()
        with pytest.raises(pidfdpool.TaskKilled, match="on the node"):
            future.result(LONG)
        assert not future.kill()

    def test_a_waiting_call_can_be_cancelled(self, executor):
        busy = [executor.submit(time.sleep, LONG) for _ in range(2)]
        eventually(lambda: all(future.running() for future in busy), "both nodes are busy")
        waiting = [executor.submit(work.square, value) for value in range(20)]
        assert all(future.cancel() for future in waiting)
        assert concurrent.futures.wait(waiting, LONG).not_done == set()
        for future in busy:
            future.kill()
        assert executor.submit(work.square, 3).result(LONG) == 9

    def test_cancel_kills_ends_what_runs(self, executor):
        future = executor.options(cancel_kills=True).submit(time.sleep, LONG)
        eventually(future.running, "it runs")
        assert future.cancel()
        assert future.cancelled()
        assert executor.submit(work.square, 3).result(LONG) == 9

    def test_shutdown_waits_for_all_and_refuses_more(self, client):
        executor = dask_door.DaskExecutor(client)
        futures = [executor.submit(work.square, value) for value in range(10)]
        results = executor.map(work.square, range(200))
        executor.shutdown()
        assert all(future.done() for future in futures)
        assert list(results) == [value * value for value in range(200)]
        with pytest.raises(RuntimeError, match="after shutdown"):
            executor.submit(work.square, 1)
        executor.shutdown()
        assert client.status == "running"

    def test_shutdown_can_cancel(self, client):
        executor = dask_door.DaskExecutor(client)
        futures = [executor.submit(time.sleep, 0.3) for _ in range(40)]
        results = executor.map(time.sleep, [0.3] * 40)
        eventually(futures[0].running, "it runs")
        executor.shutdown(cancel_futures=True)
        assert sum(future.cancelled() for future in futures) > 20
        with pytest.raises(concurrent.futures.CancelledError):
            list(results)

    def test_kill_workers_ends_everything_at_once(self, client):
        executor = dask_door.DaskExecutor(client)
        futures = [executor.submit(time.sleep, LONG) for _ in range(4)]
        eventually(futures[0].running, "it runs")
        executor.kill_workers()
        executor.shutdown()
        assert all(future.done() for future in futures)

    def test_an_executor_that_nobody_holds_ends_its_pools(self, client):
        executor = dask_door.DaskExecutor(client)
        future = executor.submit(work.square, 3)
        del executor
        assert future.result(LONG) == 9

    def test_it_is_not_for_forked_children(self, executor):
        def child():
            with pytest.raises(RuntimeError, match="forked child"):
                executor.submit(work.square, 1)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert in_forked_child(child) == "ok"
