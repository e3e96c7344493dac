"""A pool of ours in each dask worker, by the plugin and by `dask worker --preload`."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

import pytest

import pidfdpool
from tests.clients import dask_work as work
from tests.conditions import ROOT, eventually, is_alive

distributed = pytest.importorskip("distributed")
dask_door = pytest.importorskip("pidfdpool.dask")

LONG = 90.0


@pytest.fixture(autouse=True)
def nothing_is_left(no_pool_is_left):
    """Leave the cluster itself as it is, with its threads and connections."""


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
        before = work.nodes(client)
        data = client.submit(work.square, 12, pure=False)
        assert data.result(LONG) == 144
        with pytest.raises(
            pidfdpool.WorkerCrashed, match=r"on the node tcp://.*die_for_each_50th-.*SIGKILL"
        ) as caught:
            self.submit(client, work.die_for_each_50th, 7).result(LONG)
        assert caught.value.node in before
        assert self.submit(client, work.square, data).result(LONG) == 144**2
        assert work.nodes(client) == before

    def test_options_apply(self, client, register):
        register(timeout=0.3)
        with pytest.raises(pidfdpool.TaskTimeout):
            self.submit(client, time.sleep, LONG).result(LONG)

    def test_it_can_be_the_default_executor(self, client, register):
        register(2, executor="default")
        assert client.submit(work.pids, pure=False).result(LONG)[0] not in work.nodes(client).values()
        assert client.gather(client.map(work.square, range(30))) == [value * value for value in range(30)]

    def test_without_it_the_default_is_dasks_again(self, client, register):
        register(executor="default")
        client.submit(work.pids, pure=False).result(LONG)
        client.unregister_worker_plugin("pidfdpool-default")
        assert client.submit(work.pids, pure=False).result(LONG)[0] in work.nodes(client).values()

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
