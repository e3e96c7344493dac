"""Celery: the processes of its prefork pool are daemonic, and killed at their time limits."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager

import pytest

from tests.conditions import is_alive
from tests.hosts.observing import Observed, expect, expect_gone, expect_nothing_left, host, within
from tests.hosts.programs.web import SUM

pytest.importorskip("celery")
from celery import Celery
from celery.exceptions import TimeoutError as NoResult

SECTION = "Celery"
TASKS = "tests.hosts.programs.celery_app"


class Worker:
    """A `celery worker` that runs, and the client's way to have tasks done by it."""

    def __init__(self, process, folder, log, patience):
        self.process = process
        self.log = log
        self._patience = patience
        self._queue = folder / "queue"
        self._outbox = folder / "outbox"
        self._client = Celery(
            "client", broker="filesystem://", backend=f"file://{folder}/results", set_as_current=False
        )
        self._client.conf.broker_transport_options = {
            "data_folder_in": str(self._outbox),
            "data_folder_out": str(self._outbox),
            "control_folder": str(folder / "control"),
        }

    def send(self, task, *arguments, **options):
        """Send a task and return its future result."""
        result = self._client.send_task(f"{TASKS}.{task}", arguments, **options)
        # The transport writes a message in place, and a worker that is quick reads half of it.
        for message in self._outbox.iterdir():
            os.rename(message, self._queue / message.name)
        return result

    def outcome(self, result):
        """Wait for a result and return it; raise what the task raised."""
        try:
            return result.get(timeout=self._patience, interval=0.02)
        except NoResult:
            raise Observed(f"a task hangs\n{self.log()}") from None
        except Exception as error:
            raise Observed(f"a task fails: {type(error).__name__}: {error}\n{self.log()}") from None

    def do(self, task, *arguments, **options):
        return self.outcome(self.send(task, *arguments, **options))

    def end(self, number=signal.SIGTERM):
        """Shut the worker down by a signal, and return its exit status."""
        self.process.send_signal(number)
        within(self._patience, lambda: self.process.poll() is not None, "the worker does not end", self.log)
        return self.process.returncode

    def close(self):
        self._client.close()


@contextmanager
def celery(contender, folder, *arguments, pool="prefork", made="kept", orderly=False):
    """Run a Celery worker with one process or thread.

    It is killed with the block, because its own shutdown takes it seconds of waiting: its processes and their pools
    have to go with it. Where that is too much to ask, it is to end orderly.
    """
    for name in ("queue", "outbox", "control", "processed", "results"):
        (folder / name).mkdir()
    log = folder / "worker.log"
    command = [sys.executable, "-m", "celery", "-A", TASKS, "worker", "--pool", pool, "--concurrency", "1"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "INFO"]
    environment = {"CELERY_FOLDER": str(folder), "POOL": made}
    with open(log, "wb") as out:
        with host(contender, [*command, *quiet, *arguments], env=environment, stdout=out, stderr=out) as process:
            worker = Worker(process, folder, log.read_text, 8.0 if contender == "standard" else 30.0)
            try:
                within(
                    30.0,
                    lambda: " ready." in log.read_text() or process.poll() is not None,
                    "no start",
                    log.read_text,
                )
                expect(process.poll() is None, "the Celery worker ends at its start", log.read_text())
                yield worker
                if orderly:
                    worker.end()
            finally:
                worker.close()


def written(path):
    return path.exists() and int(path.read_text() or 0)


def use_and_crash(worker):
    for _ in range(2):
        expect(worker.do("total")[0] == SUM, "a wrong result")
    expect(worker.do("crash", 3) != "nothing", "the crash is not told")
    for _ in range(2):
        expect(worker.do("total")[0] == SUM, "a wrong result")


@pytest.mark.case(SECTION, "prefork: tasks use a pool, a worker of which crashes in between", ways="both")
@pytest.mark.parametrize("made", ["made per task", "kept", "made at worker_init"])
def test_tasks_use_a_pool(contender, tmp_path, made):
    with celery(contender, tmp_path, made=made) as worker:
        use_and_crash(worker)
    expect_nothing_left(os.environ)


@pytest.mark.case(SECTION, "tasks use a pool that is kept, a worker of which crashes in between")
@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_tasks_in_the_main_process_use_a_pool(contender, tmp_path, pool):
    with celery(contender, tmp_path, pool=pool, orderly=True) as worker:
        use_and_crash(worker)
    expect_nothing_left(os.environ)


@pytest.mark.case(SECTION, "the soft time limit strikes while a task waits for its pool; the pool is used again")
@pytest.mark.parametrize("made", ["kept", "made at worker_init"])
def test_the_soft_time_limit(contender, tmp_path, made):
    with celery(contender, tmp_path, made=made) as worker:
        expect(worker.do("total")[0] == SUM, "a wrong result")
        said = worker.do("overrun", str(tmp_path / "pid"), soft_time_limit=1)
        expect(said == ["SoftTimeLimitExceeded", 42], "the limit is not told", said)
        expect(worker.do("total")[0] == SUM, "a wrong result")
    expect_nothing_left(os.environ)


def test_a_pool_is_ended_at_the_soft_time_limit(way, tmp_path):
    with celery(way, tmp_path) as worker:
        said = worker.do("overrun_and_end", str(tmp_path / "pid"), soft_time_limit=1)
        assert said == "ended"
        expect_gone([written(tmp_path / "pid")])
        assert worker.do("total")[0] == SUM


@pytest.mark.case(SECTION, "the hard time limit kills the process whose task waits for its pool; then the next task")
@pytest.mark.parametrize("made", ["kept", "made at worker_init"])
def test_the_hard_time_limit(contender, tmp_path, made):
    with celery(contender, tmp_path, made=made) as worker:
        _, before, _ = worker.do("total")
        worker.send("wait_for_pool", str(tmp_path / "pid"), 600, time_limit=1)
        busy = within(10.0, lambda: written(tmp_path / "pid"), "the task does not begin", worker.log)
        within(15.0, lambda: not is_alive(before), "the limit does not end the process", worker.log)
        expect_gone([busy], "the pool's worker lives on")
        total, now, _ = worker.do("total")
        expect(total == SUM and now != before, "a wrong result")
    expect_nothing_left(os.environ)


@pytest.mark.case(SECTION, "--max-tasks-per-child=1: each process takes its pool with it")
@pytest.mark.parametrize("made", ["kept", "made at worker_init"])
def test_one_task_per_process(contender, tmp_path, made):
    with celery(contender, tmp_path, "--max-tasks-per-child", "1", made=made) as worker:
        for _ in range(3):
            total, process, pools = worker.do("total")
            expect(total == SUM, "a wrong result")
            # billiard's process waits up to 30 s until its parent has read the result (`_ensure_messages_consumed`).
            expect_gone([process], "the process does not end", seconds=45.0)
            expect_gone([pools], "the pool's worker lives on")
    expect_nothing_left(os.environ)


@pytest.mark.case(
    SECTION, "warm shutdown (SIGTERM) while a task waits for its pool: that is finished, nothing is left"
)
@pytest.mark.parametrize("pool", ["prefork", "solo", "threads"])
def test_warm_shutdown(contender, tmp_path, pool):
    with celery(contender, tmp_path, pool=pool) as worker:
        result = worker.send("wait_for_pool", str(tmp_path / "pid"), 1.0)
        within(10.0, lambda: written(tmp_path / "pid") or result.failed(), "the task does not begin", worker.log)
        status = worker.end()
        expect(worker.outcome(result) == written(tmp_path / "pid"), "a wrong result")
        expect(status == 0, f"the Celery worker ends with {status}", worker.log())
    expect_nothing_left(os.environ)


@pytest.mark.case(SECTION, "cold shutdown (SIGQUIT) while a task waits for its pool: nothing is left")
@pytest.mark.parametrize("made", ["kept", "made at worker_init"])
def test_cold_shutdown(contender, tmp_path, made):
    with celery(contender, tmp_path, made=made) as worker:
        result = worker.send("wait_for_pool", str(tmp_path / "pid"), 600)
        within(10.0, lambda: written(tmp_path / "pid") or result.failed(), "the task does not begin", worker.log)
        if result.failed():
            worker.outcome(result)
        worker.end(signal.SIGQUIT)
    expect_nothing_left(os.environ)


def test_what_a_pools_worker_is_to_multiprocessing(way, tmp_path):
    """Celery's process is daemonic to multiprocessing, too; the pool's worker is not, and knows it as its parent."""
    with celery(way, tmp_path) as worker:
        told = worker.do("who")
    assert told["daemon"] is True, "or this tests nothing"
    assert told["worker_daemon"] is False
    assert told["worker_parent"] == told["pid"]
