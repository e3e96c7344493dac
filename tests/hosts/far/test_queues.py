"""RQ forks for each job; Dramatiq ends jobs by exceptions in their threads; Huey has workers of all kinds."""

from __future__ import annotations

from contextlib import contextmanager
from importlib.util import find_spec

import pytest

from tests.hosts.far import queues
from tests.hosts.forking import kill
from tests.hosts.observing import expect, expect_gone, expect_nothing_left, within
from tests.hosts.programs.web import SUM

SECTION = "RQ, Dramatiq and Huey"
HUEY = "huey.bin.huey_consumer {jobs}.huey --workers 2 --graceful-signal TERM --worker-type"
CONSUMERS = {
    "RQ": "rq.cli worker --url {url}",
    "RQ, jobs imported before": "tests.hosts.far.programs.rq_worker",
    "Dramatiq": "dramatiq --processes 2 --threads 2 {jobs}",
    "Huey, processes": f"{HUEY} process",
    "Huey, threads": f"{HUEY} thread",
    "Huey, greenlets": f"gevent.monkey --module {HUEY} greenlet",
}


@pytest.fixture
def redis():
    """Return the address of a Redis server."""
    with queues.redis() as url:
        yield url


@pytest.fixture
def consume(contender, redis, tmp_path, request):
    """Return a function that starts a consumer by its name."""

    @contextmanager
    def start(name, at="module"):
        queue = name.partition(",")[0]
        if find_spec(queue.lower()) is None:
            pytest.skip(f"{queue} is not installed")
        with queues.consumer(contender, queue, CONSUMERS[name], tmp_path, redis, at) as consumer:
            yield consumer

    return start


# How each is asked for its pool: kept by the process that performs jobs, or made and used when they are imported.
AT = {"kept": "module", "used at import": "import"}


@pytest.mark.case(SECTION, "jobs use a pool; its worker exits with code 3; jobs; SIGTERM")
@pytest.mark.parametrize("name", CONSUMERS)
@pytest.mark.parametrize("at", AT)
def test_working(consume, name, at):
    with consume(name, AT[at]) as consumer:
        one, crash, other = consumer.do(("/", ""), ("/crash", "code=3"), ("/", ""))
        expect(one["sum"] == other["sum"] == SUM, "a wrong result")
        expect(crash["error"], "the crash is not told")
        expect_stop(consumer)
    expect_nothing_left(consumer.env)


LIMITED = {"RQ": "JobTimeoutException", "Dramatiq": "TimeLimitExceeded"}


@pytest.mark.case(SECTION, "the time limit strikes while jobs wait for their pool; it is used again")
@pytest.mark.parametrize("name", LIMITED)
def test_time_limit(consume, name, tmp_path):
    with consume(name) as consumer:
        for said in consumer.do(*[("/overrun", str(tmp_path / "begun"))] * 3, limit=4):
            expect(said == [LIMITED[name], 42], "the limit is not told", said)


def begin(consumer, folder, seconds):
    """Put a job into the queue, and wait until its task has begun; return the job's file and the pool worker."""
    begun = folder / "begun"
    (job,) = consumer.put(("/sleep", f"seconds={seconds}&path={begun}"))
    worker = within(20, lambda: begun.exists() and begun.read_text(), "a task does not begin", consumer.log)
    return job, int(worker)


def expect_stop(consumer):
    consumer.process.terminate()
    within(20, lambda: consumer.process.poll() is not None, "the consumer does not stop", consumer.log)


@pytest.mark.case(SECTION, "the process that performs jobs is killed (SIGKILL) while its pool computes")
@pytest.mark.parametrize("name", CONSUMERS)
def test_kill(consume, name, tmp_path):
    with consume(name) as consumer:
        job, worker = begin(consumer, tmp_path, 600)
        kill(int(job.with_name(f"{job.name}-performer").read_text()))
        expect_gone([worker], "the killed process's task runs on")


@pytest.mark.case(SECTION, "SIGTERM while a job waits for its task: the job is finished, nothing is left")
@pytest.mark.parametrize("name", CONSUMERS)
def test_warm_shutdown(consume, name, tmp_path):
    with consume(name) as consumer:
        job, worker = begin(consumer, tmp_path, 2)
        expect_stop(consumer)
        expect(consumer.outcome(job)["worker"] == worker, "a wrong result")
    expect_nothing_left(consumer.env)
