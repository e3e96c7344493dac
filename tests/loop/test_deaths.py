"""What is told of a worker's death: to subscribers, to the log, by the errors."""

from __future__ import annotations

import dataclasses
import logging
import os
import pickle
import signal
import threading
import time
import traceback
from concurrent.futures.process import _RemoteTraceback

import pytest

from pidfdpool import PidfdPoolExecutor, PoisonTask, PoolBroken, WorkerCrashed
from pidfdpool.deaths import Cause, Death
from pidfdpool.errors import TaskTimeout
from pidfdpool.loop import worker_stderr
from pidfdpool.pidfd import ExitStatus
from tests import calls
from tests.conditions import eventually


def causes(deaths):
    return [death.cause for death in deaths]


@pytest.mark.usefixtures("sure_of_deaths")
def test_each_death_is_told_exactly_once(way, tmp_path):
    deaths = []
    with PidfdPoolExecutor(2, mp_context=way, max_tasks_per_child=20) as pool:
        pool.subscribe(deaths.append)
        pool.submit(calls.die).exception(timeout=20)
        path = str(tmp_path / "pid")
        future = pool.submit(calls.run_until, path, path + ".never")
        eventually(lambda: os.path.exists(path), "it runs")
        future.kill()
        future.exception(timeout=20)
        list(pool.map(calls.double, range(100)))
        pool.options(timeout=0.1, grace=0.1).submit(calls.hang_in_sleep).exception(timeout=20)
    stats = pool.stats()
    assert stats.deaths == len(deaths)
    assert stats.crashes == 1
    assert len({death.generation for death in deaths}) == len(deaths)
    assert len({death.pid for death in deaths}) == len(deaths)
    found = causes(deaths)
    assert found[:2] == [Cause.CRASH, Cause.KILL]
    assert found.count(Cause.TIMEOUT) == 1
    assert found.count(Cause.TASKS) >= 4
    assert set(found) <= {Cause.CRASH, Cause.KILL, Cause.TIMEOUT, Cause.TASKS, Cause.SHUTDOWN}


def test_a_death_has_all_the_fields(way):
    deaths = []
    began = time.time()
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.subscribe(deaths.append)
        pid = pool.submit(os.getpid).result()
        pool.submit(sum, range(3_000_000)).result()
        pool.submit(calls.die, signal.SIGKILL).exception(timeout=20)
        death = deaths[0]
        assert (death.slot, death.pid, death.cause, death.tasks_done) == (0, pid, Cause.CRASH, 2)
        assert (death.task, death.task_id, death.attempt) == ("tests.calls.die", 3, 1)
        assert death.exit_status.signal == signal.SIGKILL
        assert death.uptime > 0
        assert death.peak_rss > 1_000_000
        assert death.cpu_time > 0
        assert began <= death.ended_at <= time.time()
        assert not death.expected
        assert death.oom_kills in (None, 0)
        assert (death.stderr, death.detail, death.stack) == ((), "", None)
        assert f"(pid {pid}) ended while it ran task 3" in str(death)
        assert pickle.loads(pickle.dumps(death)) == death
        with pytest.raises(dataclasses.FrozenInstanceError):
            death.slot = 3
    assert causes(deaths) == [Cause.CRASH, Cause.SHUTDOWN]
    assert deaths[1].expected
    assert deaths[1].exit_status.code == 0
    assert (deaths[1].task, deaths[1].task_id, deaths[1].attempt) == (None, None, 0)
    assert deaths[1].generation != deaths[0].generation


def test_subscribers_are_told_before_the_future_is(way):
    order = []
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.subscribe(lambda death: order.append((death.task_id, futures[death.task_id - 1].done())))
        futures = []
        for _ in range(5):
            futures.append(pool.submit(calls.die))
            futures[-1].exception(timeout=20)
    assert order[:5] == [(number, False) for number in range(1, 6)]


def test_a_subscription_ends_when_it_is_asked_to(way):
    first, second = [], []
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        unsubscribe = pool.subscribe(first.append)
        pool.subscribe(second.append)
        pool.submit(calls.die).exception(timeout=20)
        unsubscribe()
        unsubscribe()
        pool.submit(calls.die).exception(timeout=20)
        with pytest.raises(TypeError, match="callback"):
            pool.subscribe("no function")
        assert (len(first), len(second)) == (1, 2)
    assert (len(first), len(second)) == (1, 3)


def test_a_subscription_that_is_made_twice_ends_twice():
    deaths = []
    with PidfdPoolExecutor(1) as pool:
        first, second = pool.subscribe(deaths.append), pool.subscribe(deaths.append)
        first()
        first()
        pool.submit(calls.die).exception(timeout=20)
        assert len(deaths) == 1
        second()


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_subscriber_that_raises_harms_nobody(way, kind, caplog):
    def refuse(death):
        raise kind("not today")

    deaths = []
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.subscribe(refuse)
        pool.subscribe(deaths.append)
        assert isinstance(pool.submit(calls.die).exception(timeout=20), WorkerCrashed)
        assert pool.submit(calls.double, 2).result(timeout=20) == 4
    assert len(deaths) == 2
    assert sum("exception calling" in record.getMessage() for record in caplog.records) == 2


def test_a_subscriber_may_use_the_pool(way):
    seen = []

    def use(death):
        seen.append((pool.stats().deaths, len(pool.workers()), pool.submit(calls.double, 2)))
        pool.resize(2)
        pool.shutdown(wait=True)  # as a subscriber it cannot wait

    with PidfdPoolExecutor(1, mp_context=way) as pool:
        unsubscribe = pool.subscribe(use)
        pool.submit(calls.die).exception(timeout=20)
        unsubscribe()
        assert seen[0][2].result(timeout=20) == 4
        assert seen[0][0] == 1


def test_deaths_are_logged_with_the_record(way, caplog):
    with caplog.at_level(logging.DEBUG, "pidfdpool.deaths"):
        with PidfdPoolExecutor(1, mp_context=way) as pool:
            error = pool.submit(calls.die).exception(timeout=20)
            pool.submit(calls.double, 2).result()
    records = [record for record in caplog.records if record.name == "pidfdpool.deaths"]
    assert [record.levelname for record in records] == ["WARNING", "DEBUG"]
    assert [record.death.cause for record in records] == [Cause.CRASH, Cause.SHUTDOWN]
    assert records[0].death == error.death
    assert records[0].getMessage() == str(error.death)


def test_standard_error_is_captured_and_passed_on(way, capfd):
    deaths = []
    with PidfdPoolExecutor(1, mp_context=way, capture_stderr=True) as pool:
        pool.subscribe(deaths.append)
        pool.submit(calls.write_to_stderr, 2).result()
        error = pool.submit(calls.write_to_stderr, 3, "die").exception(timeout=20)
        pool.submit(calls.write_to_stderr, 1).result()
    assert error.stderr == ("line 0", "line 1", "line 0", "line 1", "line 2")
    assert "line 2" in str(error.__cause__)
    assert [death.stderr[-1] for death in deaths] == ["line 2", "line 0"]
    assert capfd.readouterr().err.splitlines() == ["line 0", "line 1", "line 0", "line 1", "line 2", "line 0"]


def test_without_capturing_standard_error_is_the_hosts(way, capfd):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        error = pool.submit(calls.write_to_stderr, 3, "die").exception(timeout=20)
    assert error.stderr == ()
    assert capfd.readouterr().err.splitlines() == ["line 0", "line 1", "line 2"]


def test_only_the_last_lines_are_kept_and_all_are_passed_on(way, capfd):
    with PidfdPoolExecutor(1, mp_context=way, capture_stderr=True) as pool:
        error = pool.submit(calls.write_to_stderr, 20_000, "die").exception(timeout=20)
    assert error.stderr == tuple(f"line {number}" for number in range(19_980, 20_000))
    assert capfd.readouterr().err.splitlines() == [f"line {number}" for number in range(20_000)]


def write_long_lines():
    os.write(2, b"x" * 100_000 + b"\nshort\n" + b"\xff" * 100_000)
    calls.die()


def test_long_lines_are_bounded(way, capfd):
    with PidfdPoolExecutor(1, mp_context=way, capture_stderr=True) as pool:
        error = pool.submit(write_long_lines).exception(timeout=20)
    assert len(error.stderr) == 3
    assert error.stderr[0].startswith("xxx")
    assert error.stderr[1] == "short"
    assert sum(map(len, error.stderr)) < 10_000
    assert len(capfd.readouterr().err) >= 200_000


def chatter():
    while True:
        os.write(2, b"x" * 4000 + b"\n")


def test_a_worker_that_never_stops_writing_stops_nobody(way):
    """What it writes is read by the thread that has to end it."""
    saved, null = os.dup(2), os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 2)
    try:
        with PidfdPoolExecutor(2, mp_context=way, capture_stderr=True) as pool:
            noise = pool.options(timeout=0.5, grace=0.1).submit(chatter)
            for number in range(50):
                assert pool.submit(calls.double, number).result(timeout=10) == 2 * number
            assert isinstance(noise.exception(timeout=10), TaskTimeout)
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def test_reading_from_who_writes_as_fast_as_it_is_read_comes_to_an_end(monkeypatch):
    passed_on = []

    def refill(data):
        passed_on.append(len(data))
        assert len(passed_on) < 1000, "the pool thread, which reads, would do nothing else any more"
        os.write(writer, data)

    reader, writer = os.pipe()
    monkeypatch.setattr(worker_stderr, "_pass_on", refill)
    captured = worker_stderr.Stderr(reader)
    try:
        os.write(writer, b"x" * 5000 + b"\n")
        assert captured.read(), "there is more to come"
    finally:
        captured.close()
        os.close(writer)


def assert_caused(error, *seen):
    """Check that the error has a cause of the standard's own class that says all this, also when copied."""
    assert type(error.__cause__) is _RemoteTraceback
    for text in seen:
        assert text in str(error.__cause__), text
        assert text in "".join(traceback.format_exception(error))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy.__cause__) is _RemoteTraceback
    assert str(copy.__cause__) == str(error.__cause__)


def test_the_cause_of_a_crash_says_how_the_process_ended(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        error = pool.submit(calls.leave, 99).exception(timeout=20)
        assert_caused(error, f"Process {error.pid} terminated abruptly with exit code 99")
        error = pool.submit(calls.die).exception(timeout=20)
        assert_caused(error, f"Process {error.pid} terminated abruptly with exit code -9 (killed by SIGKILL)")


def test_the_cause_of_a_failed_retry_says_it_of_each_attempt(way):
    with PidfdPoolExecutor(1, mp_context=way, retries=1) as pool:
        error = pool.submit(calls.leave, 3).exception(timeout=20)
    assert isinstance(error, PoisonTask)
    first, second = error.deaths
    assert_caused(error, *(f"Process {death.pid} terminated abruptly with exit code 3" for death in (first, second)))


@pytest.mark.usefixtures("sure_of_deaths")
def test_the_cause_of_a_timeout_says_that_the_pool_ended_the_process(way):
    with PidfdPoolExecutor(1, mp_context=way, timeout=1.0, grace=1.0) as pool:
        error = pool.submit(time.sleep, 60).exception(timeout=20)
    how = f"exit code -15 (killed by SIGTERM, {Cause.TIMEOUT.value})"
    assert_caused(error, f"Process {error.pid} was ended by the pool with {how}", "Its Python stack")


def test_an_error_without_a_death_has_no_cause():
    assert WorkerCrashed("lost", task="work", task_id=1, attempt=1).__cause__ is None


def test_every_task_of_a_broken_pool_is_told_which_process_ended(way):
    with PidfdPoolExecutor(1, mp_context=way, on_crash="break") as pool:
        futures = [pool.submit(calls.leave, 99), *(pool.submit(calls.double, 1) for _ in range(20))]
        errors = [future.exception(timeout=20) for future in futures]
        assert isinstance(errors[0], WorkerCrashed)
        for error in errors:
            assert f"Process {errors[0].pid} terminated abruptly with exit code 99" in str(error.__cause__)
        assert all(isinstance(error, PoolBroken) for error in errors[1:])
        with pytest.raises(PoolBroken) as caught:
            pool.submit(calls.double, 2)
        assert type(caught.value.__cause__) is _RemoteTraceback


def test_a_death_that_could_not_be_observed_is_said_to_be_unknown():
    death = Death(0, 1, 123, Cause.CRASH, ExitStatus.UNKNOWN, 1.0, 0)
    assert death.as_seen() == "Process 123 terminated abruptly, and its exit status is unknown"


def test_a_broken_pool_tells_the_deaths_that_led_to_it(way):
    rules = {"intensity": 2, "backoff": 0.0, "backoff_limit": 0.0}
    with PidfdPoolExecutor(1, mp_context=way, initializer=os._exit, initargs=(5,), **rules) as pool:
        error = pool.submit(calls.double, 2).exception(timeout=30)
        assert isinstance(error, PoolBroken)
        assert len(error.deaths) == 3
        assert all(death.exit_status.code == 5 and death.cause is Cause.CRASH for death in error.deaths)
        with pytest.raises(PoolBroken) as caught:
            pool.submit(calls.double, 2)
        assert caught.value.deaths == error.deaths
    assert len(pickle.loads(pickle.dumps(error)).deaths) == 3


def test_the_deaths_that_the_break_itself_caused_did_not_lead_to_it(way, tmp_path):
    path = str(tmp_path / "pid")
    with PidfdPoolExecutor(2, mp_context=way, on_crash="break") as pool:
        running = pool.submit(calls.run_until, path, path + ".never")
        eventually(lambda: os.path.exists(path), "it runs")
        pool.submit(calls.die).exception(timeout=20)
        first = running.exception(timeout=20)
        assert causes(first.deaths) == [Cause.CRASH]
        eventually(lambda: pool.stats().deaths == 2, "the other worker has ended, too")
        with pytest.raises(PoolBroken) as caught:
            pool.submit(calls.double, 2)
        assert caught.value.deaths == first.deaths


@pytest.mark.many_times
def test_subscribing_in_many_threads_loses_nothing(way):
    deaths = []
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        pool.subscribe(deaths.append)
        stop = threading.Event()

        def subscribe():
            while not stop.is_set():
                pool.subscribe(lambda death: None)()

        threads = [threading.Thread(target=subscribe) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            pool.submit(calls.die).exception(timeout=20)
        stop.set()
        for thread in threads:
            thread.join()
        assert len(deaths) == 20
