"""Dask workers, schedulers and clients that go away."""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
import time

import pytest

import pidfdpool
from pidfdpool.pidfd import Pidfd
from tests.clients import dask_work as work
from tests.conditions import ROOT, eventually, start_python

distributed = pytest.importorskip("distributed")
dask_door = pytest.importorskip("pidfdpool.dask")

LONG = 90.0


@pytest.fixture(autouse=True)
def nothing_is_left(no_pool_is_left):
    """Leave the cluster itself as it is, with its threads and connections."""


class TestLostNodes:
    def run_and_kill_one(self, client, folder, count, **options):
        """Kill a dask worker in the middle of many calls; return their futures, all done."""
        with dask_door.DaskExecutor(client, **options) as executor:
            futures = [executor.submit(work.note_and_sleep, str(folder), number) for number in range(count)]
            eventually(lambda: len(os.listdir(folder)) > count // 10, "a tenth has begun")
            victim = next(iter(work.nodes(client).values()))
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
            with Pidfd.open(next(iter(work.nodes(client).values()))) as handle:
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
        before = work.pool_processes()
        with start_python(code, cluster.scheduler_address, stderr=subprocess.DEVNULL) as process:
            assert process.stdout.readline() == "running\n"
            assert work.pool_processes() - before
            process.kill()
        eventually(lambda: not work.pool_processes() - before, "the call and its pool are gone")
