"""The door for Dask, on a cluster of two dask workers with one thread each, in processes with a nanny."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import subprocess
import sys
import threading
import time
import warnings

import pytest

import pidfdpool
from pidfdpool.cli import sample, transform
from pidfdpool.cli.target import Target
from pidfdpool.pidfd import Pidfd
from tests.clients import dask_work as work
from tests.conditions import ROOT, describe, eventually, is_alive, processes_of_this_run, start_python

distributed = pytest.importorskip("distributed")
dask_door = pytest.importorskip("pidfdpool.dask")

LONG = 90.0
QUIET = {"distributed.admin.log-format": "%(message)s", "distributed.worker.memory.terminate": False}


def pool_processes() -> set[int]:
    """Return the processes of pools that this run has anywhere: in the nodes, too."""
    found = set()
    for pid in processes_of_this_run():
        try:
            with open(f"/proc/{pid}/comm") as file:
                if file.read().startswith("pidfd-"):
                    found.add(pid)
        except OSError:
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Fail a test that leaves a process of a pool. The cluster itself stays, with its threads and connections."""
    before = pool_processes()
    yield
    try:
        eventually(lambda: not pool_processes() - before, "no process of a pool is left")
    except AssertionError:
        pytest.fail(f"left by the test: {[describe(pid) for pid in pool_processes() - before]}")


@pytest.fixture(scope="module")
def cluster():
    import logging

    threads = set(threading.enumerate())
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
    ) as made:
        yield made
    names = ("Dask-", "asyncio_", "pytest_timeout")  # dask keeps some executors until the interpreter ends

    def left():
        return [thread.name for thread in set(threading.enumerate()) - threads if not thread.name.startswith(names)]

    try:
        eventually(lambda: not left(), "the cluster's threads have ended")
    except AssertionError:
        pytest.fail(f"threads are left: {left()}")


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster, set_as_default=False) as made:
        made.wait_for_workers(2, timeout=60)
        yield made


@pytest.fixture
def executor(client):
    with dask_door.DaskExecutor(client) as made:
        yield made


def nodes(client) -> dict[str, int]:
    """Return the process of each dask worker."""
    return client.run(os.getpid)


class TestCalls:
    def test_a_call_returns_what_it_returns(self, executor):
        future = executor.submit(work.square, 7)
        assert isinstance(future, concurrent.futures.Future)
        assert future.result(LONG) == 49
        assert (future.attempt, future.done(), future.running()) == (1, True, False)
        assert future.node.startswith("tcp://")
        assert future.worker.pid not in nodes(executor._submission.client).values()

    def test_it_runs_in_a_worker_of_the_nodes_pool(self, executor, client):
        pid, parent = executor.submit(work.pids).result(LONG)
        assert not {pid, parent} & set(nodes(client).values())

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
        before = nodes(client)
        with pytest.raises(pidfdpool.WorkerCrashed):
            executor.submit(work.square, work.Unloadable()).result(LONG)
        assert nodes(client) == before

    def test_a_missing_module_says_what_helps(self, executor, tmp_path, monkeypatch):
        (tmp_path / "only_here.py").write_text("def double(value):\n    return value * 2\n")
        monkeypatch.syspath_prepend(tmp_path)
        import only_here

        with pytest.raises(ModuleNotFoundError, match="only_here") as caught:
            executor.submit(only_here.double, 2).result(LONG)
        assert "register_pickle_by_value" in caught.value.__notes__[0]

    def test_a_burst_is_answered_call_by_call(self, executor):
        futures = [executor.submit(work.square, value) for value in range(300)]
        assert [future.result(LONG) for future in futures] == [value * value for value in range(300)]


class TestErrors:
    def test_a_death_names_node_and_cause(self, executor, client):
        before = nodes(client)
        future = executor.submit(work.die_for_each_50th, 7)
        with pytest.raises(
            pidfdpool.WorkerCrashed, match=r"on the node tcp://.*die_for_each_50th.*SIGKILL"
        ) as caught:
            future.result(LONG)
        assert caught.value.node in before
        assert caught.value.task == "tests.clients.dask_work.die_for_each_50th"
        assert caught.value.exit_status.signal == 9
        assert nodes(client) == before, "the dask worker went on"

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
        before = nodes(client)
        outcomes = list(executor.map(work.die_for_each_50th, range(1000), return_exceptions=True))
        assert [outcome.index for outcome in outcomes] == list(range(1000))
        failed = [outcome for outcome in outcomes if not outcome.ok]
        assert [outcome.index for outcome in failed] == [value for value in range(1000) if value % 50 == 7]
        assert {type(outcome.error) for outcome in failed} == {pidfdpool.WorkerCrashed}
        assert "item 57 of map" in str(failed[1].error)
        assert [outcome.value for outcome in outcomes if outcome.ok] == [v for v in range(1000) if v % 50 != 7]
        assert nodes(client) == before


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
        from tests.conditions import in_forked_child

        def child():
            with pytest.raises(RuntimeError, match="forked child"):
                executor.submit(work.square, 1)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert in_forked_child(child) == "ok"


class TestMaps:
    @pytest.mark.parametrize(
        "settings", [{}, {"chunksize": 7}, {"buffersize": 20}, {"chunksize": 3, "buffersize": 2}]
    )
    def test_results_come_in_order(self, executor, settings):
        assert list(executor.map(work.square, range(200), **settings)) == [value * value for value in range(200)]
        assert sorted(executor.map_unordered(work.square, range(200), **settings)) == [v * v for v in range(200)]

    def test_a_failing_call_ends_the_map_behind_those_before_it(self, executor):
        results = executor.map(work.fail_for_three, range(100))
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(work.Own):
            next(results)
        assert list(results) == []

    def test_a_bounded_map_takes_one_further_input_for_each_result(self, executor):
        taken = []
        endless = (taken.append(value) or value for value in range(10**9))
        results = executor.map(work.square, endless, buffersize=10)
        assert len(taken) == 10
        assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
        assert len(taken) == 15
        results.close()

    def test_what_the_input_raises_comes_in_its_turn(self, executor):
        def broken():
            yield from range(5)
            raise work.Own("input")

        results = executor.map(work.square, broken(), buffersize=3)
        assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
        with pytest.raises(work.Own, match="input"):
            next(results)
        with pytest.raises(work.Own, match="input"):
            list(executor.map(work.square, broken()))

    def test_stars_and_timeouts(self, executor):
        assert list(executor.map(pow, [(2, 5), (3, 2)], star=True)) == [32, 9]
        with pytest.raises(TypeError, match="item 1 is 5"):
            list(executor.map(pow, [(2, 5), 5], star=True))
        with pytest.raises(TypeError, match="one iterable"):
            executor.map(pow, [1], [2], star=True)
        with pytest.raises(TimeoutError):
            list(executor.options(timeout=1).map(time.sleep, [LONG], timeout=0.2))

    def test_one_argument_that_does_not_pickle_is_one_outcome(self, executor):
        outcomes = list(executor.map(repr, [1, threading.Lock(), 3], return_exceptions=True))
        assert [outcome.ok for outcome in outcomes] == [True, False, True]
        assert isinstance(outcomes[1].error, pidfdpool.CallNotSendable)

    def test_bad_arguments_are_named(self, executor):
        for wrong in ({"chunksize": 0}, {"buffersize": -1}, {"star": 1}, {"return_exceptions": None}):
            with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
                executor.map(work.square, [1], **wrong)

    def test_the_demos_job_gives_the_same_bytes(self, executor):
        lines = list(sample.generate(600, 20))
        blocks = [b"".join(lines[start : start + 20]) for start in range(0, len(lines), 20)]
        inline = b"".join(map(sample.summarize_lines, blocks))
        assert b"".join(executor.map(sample.summarize_lines, blocks)) == inline
        assert b"".join(executor.map(sample.summarize_lines, iter(blocks), buffersize=8)) == inline
        job = transform.Job(Target("pidfdpool.cli.sample", "summarize"), False, "fail", False)
        asked = [
            executor.submit(transform.run, job, transform.Block("events", 1, block, len(block))) for block in blocks
        ]
        assert b"".join(future.result(LONG).output for future in asked) == inline


class TestAsyncio:
    def test_calls_and_maps_are_awaited_in_another_loop(self, client):
        async def numbers():
            for number in range(50):
                yield number

        async def main():
            async with dask_door.DaskExecutor(client) as executor:
                assert await executor.run(work.square, 3) == 9
                assert [value async for value in executor.amap(work.square, range(50))] == [v * v for v in range(50)]
                found = [value async for value in executor.amap(pow, numbers(), range(50), buffersize=6)]
                assert found == [value**value for value in range(50)]
                found = [value async for value in executor.amap_unordered(work.square, numbers())]
                assert sorted(found) == [value * value for value in range(50)]
                outcomes = [o async for o in executor.amap(work.fail_for_three, range(5), return_exceptions=True)]
                assert [outcome.ok for outcome in outcomes] == [True, True, True, False, True]

        asyncio.run(asyncio.wait_for(main(), LONG))

    def test_cancelling_cancels(self, client):
        async def main():
            async with dask_door.DaskExecutor(client, cancel_kills=True) as executor:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(executor.run(time.sleep, LONG), 1)
                return await executor.run(work.square, 2)

        assert asyncio.run(asyncio.wait_for(main(), LONG)) == 4

    def test_an_endless_input_is_closed(self, client):
        closed = []

        async def endless():
            number = 0
            try:
                while True:
                    yield number
                    number += 1
            finally:
                closed.append(number)

        async def main():
            async with dask_door.DaskExecutor(client) as executor:
                results = executor.amap(work.square, endless(), buffersize=4)
                assert [await anext(results) for _ in range(3)] == [0, 1, 4]
                await results.aclose()

        asyncio.run(asyncio.wait_for(main(), LONG))
        assert closed
        assert closed[0] <= 8


class TestLostNodes:
    def run_and_kill_one(self, client, folder, count, **options):
        """Kill a dask worker in the middle of many calls; return their futures, all done."""
        with dask_door.DaskExecutor(client, **options) as executor:
            futures = [executor.submit(work.note_and_sleep, str(folder), number) for number in range(count)]
            eventually(lambda: len(os.listdir(folder)) > count // 10, "a tenth has begun")
            victim = next(iter(nodes(client).values()))
            with Pidfd.open(victim) as handle:
                handle.send_signal(9)
            concurrent.futures.wait(futures, LONG)
        return futures

    def test_with_retries_nothing_is_lost(self, client, tmp_path):
        futures = self.run_and_kill_one(client, tmp_path, 150, retries=2)
        assert [future.result(0) for future in futures] == list(range(150))

    def test_without_retries_no_call_runs_twice_and_the_others_go_on(self, client, tmp_path):
        futures = self.run_and_kill_one(client, tmp_path, 150)
        runs = [int(name.partition("-")[0]) for name in os.listdir(tmp_path)]
        assert len(runs) == len(set(runs))
        lost = [number for number, future in enumerate(futures) if future.exception(0) is not None]
        assert 1 <= len(lost) <= 20  # what it ran, what waited there, and what it had not handed over yet
        for number in lost:
            with pytest.raises(pidfdpool.WorkerCrashed, match=r"lost with its node: the dask worker tcp://"):
                futures[number].result(0)
        assert set(range(150)) - set(runs) <= set(lost)

    def test_a_map_goes_on_with_retries(self, client, tmp_path):
        with dask_door.DaskExecutor(client, retries=2) as executor:
            results = executor.map(work.note_and_sleep, [str(tmp_path)] * 150, range(150))
            eventually(lambda: len(os.listdir(tmp_path)) > 20, "some have begun")
            with Pidfd.open(next(iter(nodes(client).values()))) as handle:
                handle.send_signal(9)
            assert list(results) == list(range(150))


GOING = """
    import sys, time
    from distributed import LocalCluster
    if __name__ == "__main__":
        with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
            print(cluster.scheduler_address, flush=True)
            time.sleep(90)
"""


class TestNoCluster:
    def test_a_scheduler_that_goes_away_ends_all_calls(self, tmp_path):
        script = tmp_path / "going.py"
        script.write_text("\n".join(line[4:] for line in GOING.splitlines()))
        process = subprocess.Popen(
            [sys.executable, str(script)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": ROOT},
        )
        with process:
            address = process.stdout.readline().strip()
            executor = dask_door.open_cluster(address)
            futures = [executor.submit(time.sleep, LONG) for _ in range(3)]
            results = executor.map(time.sleep, [LONG] * 3)
            unordered = executor.map_unordered(time.sleep, [LONG] * 3)
            eventually(futures[0].running, "it runs")
            process.kill()
            for future in futures:
                with pytest.raises(pidfdpool.PoolBroken, match=address):
                    future.result(30)
            for each in (results, unordered):
                with pytest.raises(pidfdpool.PoolBroken, match="went away"):
                    next(each)
            with pytest.raises(pidfdpool.PoolBroken, match="went away"):
                executor.submit(work.square, 1)
            with pytest.raises(pidfdpool.PoolBroken, match="went away"):
                executor.map(work.square, [1])
            executor.shutdown()
            assert executor._submission.client.status == "closed"

    def test_a_client_that_is_closed_ends_all_calls(self, cluster):
        client = distributed.Client(cluster, set_as_default=False)
        executor = dask_door.DaskExecutor(client)
        future = executor.submit(time.sleep, 5)
        client.close()
        with pytest.raises(pidfdpool.PoolBroken, match="closed"):
            future.result(LONG)
        with pytest.raises(pidfdpool.PoolBroken, match="closed"):
            executor.submit(work.square, 1)
        executor.shutdown()

    def test_an_opened_cluster_is_closed_with_its_executor(self, cluster):
        with dask_door.open_cluster(cluster.scheduler_address, timeout=60) as executor:
            client = executor._submission.client
            assert list(executor.map(work.square, range(20), buffersize=8)) == [value * value for value in range(20)]
        assert client.status == "closed"

    def test_nothing_runs_on_for_a_client_that_has_died(self, cluster, tmp_path):
        code = """
            import sys, time
            from pidfdpool.dask import open_cluster
            executor = open_cluster(sys.argv[1])
            future = executor.submit(time.sleep, 90)
            while not future.running():
                time.sleep(0.01)
            print("running", flush=True)
            time.sleep(90)
        """
        before = pool_processes()
        with start_python(code, cluster.scheduler_address, stderr=subprocess.DEVNULL) as process:
            assert process.stdout.readline() == "running\n"
            assert pool_processes() - before
            process.kill()
        eventually(lambda: not pool_processes() - before, "the call and its pool are gone")


class TestPlugin:
    @pytest.fixture
    def register(self, client):
        registered = []

        def register(*arguments, **options):
            plugin = dask_door.PidfdPoolPlugin(*arguments, **options)
            client.register_plugin(plugin)
            registered.append(plugin.name)

        yield register
        for name in set(registered):
            with contextlib.suppress(ValueError):  # the test has removed it
                client.unregister_worker_plugin(name)

    def submit(self, client, function, *arguments, executor="pidfdpool"):
        import dask

        with dask.annotate(executor=executor):
            return client.submit(function, *arguments, pure=False)

    def test_a_crash_costs_the_task_and_not_the_data(self, client, register):
        register()
        before = nodes(client)
        data = client.submit(work.square, 12, pure=False)
        assert data.result(LONG) == 144
        with pytest.raises(
            pidfdpool.WorkerCrashed, match=r"on the node tcp://.*die_for_each_50th-.*SIGKILL"
        ) as caught:
            self.submit(client, work.die_for_each_50th, 7).result(LONG)
        assert caught.value.node in before
        assert self.submit(client, work.square, data).result(LONG) == 144**2
        assert nodes(client) == before

    def test_options_apply(self, client, register):
        register(timeout=0.3)
        with pytest.raises(pidfdpool.TaskTimeout):
            self.submit(client, time.sleep, LONG).result(LONG)

    def test_it_can_be_the_default_executor(self, client, register):
        register(2, executor="default")
        assert client.submit(work.pids, pure=False).result(LONG)[0] not in nodes(client).values()
        assert client.gather(client.map(work.square, range(30))) == [value * value for value in range(30)]

    def test_without_it_the_default_is_dasks_again(self, client, register):
        register(executor="default")
        client.submit(work.pids, pure=False).result(LONG)
        client.unregister_worker_plugin("pidfdpool-default")
        assert client.submit(work.pids, pure=False).result(LONG)[0] in nodes(client).values()

    def test_a_broken_pool_is_replaced(self, client, register):
        register(on_crash="break")
        for _ in range(3):
            with pytest.raises(pidfdpool.WorkerCrashed):
                self.submit(client, work.die_for_each_50th, 7).result(LONG)
            assert self.submit(client, work.square, 3).result(LONG) == 9

    def test_registering_again_replaces_it(self, client, register):
        register(timeout=0.3)
        register(timeout=60)
        assert self.submit(client, time.sleep, 0.5).result(LONG) is None


class TestPreload:
    def dask_worker(self, address, *arguments, **options):
        command = [sys.executable, "-m", "dask", "worker", address, "--nthreads", "1", "--no-dashboard"]
        command += ["--preload", "pidfdpool.dask", *arguments]
        environment = {**os.environ, "PYTHONPATH": ROOT}
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, **options)

    def names(self, client):
        return {worker["id"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()}

    def test_it_gives_a_worker_its_pool(self, client):
        import dask

        process = self.dask_worker(client.scheduler.address, "--name", "preloaded", "--pool-option", "timeout=5")
        try:
            eventually(
                lambda: [
                    w for w in client.scheduler_info(n_workers=-1)["workers"].values() if w["id"] == "preloaded"
                ],
                "the dask worker is there",
                60,
            )
            with dask.annotate(executor="pidfdpool"):
                future = client.submit(time.sleep, LONG, workers=["preloaded"], pure=False)
                pids = client.submit(work.pids, workers=["preloaded"], pure=False)
            with pytest.raises(pidfdpool.TaskTimeout):
                future.result(LONG)
            pid, parent = pids.result(LONG)
            assert is_alive(parent)
        finally:
            process.terminate()
            process.communicate(timeout=60)
        eventually(lambda: not is_alive(pid) and not is_alive(parent), "nothing of its pool is left")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--pool-option", "timeuot=5"], "timeuot"),
            (["--pool-option", "timeout=-1"], "timeout must be"),
            (["--pool-option", "max_pending=5"], "max_pending"),
            (["--pool-wrokers", "2"], "--pool-wrokers"),
        ],
    )
    def test_a_wrong_option_ends_the_command(self, client, arguments, said):
        process = self.dask_worker(client.scheduler.address, *arguments)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 2
        assert said in err
