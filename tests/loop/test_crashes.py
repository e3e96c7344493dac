"""A worker's death: what the futures get, what the pool does, what is known."""

from __future__ import annotations

import errno
import os
import random
import signal
import stat
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

from pidfdpool import PidfdPoolExecutor, PoolBroken, WorkerCrashed
from pidfdpool.loop import answers
from pidfdpool.pidfd import Pidfd
from pidfdpool.transport import channel as channels
from tests import calls
from tests.conditions import children, eventually, is_alive, is_zombie
from tests.pace import seem_quick


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_tells_its_signal(way, number):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        error = pool.submit(calls.die, number).exception()
        assert isinstance(error, WorkerCrashed)
        assert isinstance(error, BrokenProcessPool)
        assert error.exit_status.signal == number
        assert number.name in str(error)
        assert "tests.calls.die" in str(error)
        assert pool.submit(calls.double, 2).result() == 4


@pytest.mark.parametrize("code", [0, 3, 255])
def test_a_worker_that_ends_itself_tells_its_exit_code(way, code):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        error = pool.submit(calls.leave, code).exception()
        assert error.exit_status.code == code
        assert f"exited with code {code}" in str(error)


def test_the_error_has_fields_and_survives_pickling(way):
    import pickle

    with PidfdPoolExecutor(2, mp_context=way) as pool:
        pid = pool.submit(os.getpid).result()
        error = pool.submit(calls.die).exception()
    assert error.pid == pid
    assert error.slot == 0
    assert error.task_id == 2
    assert error.tasks_done == 1
    assert error.uptime > 0
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.pid, copy.exit_status) == (str(error), error.pid, error.exit_status)


def test_a_crash_fails_only_the_task_that_ran(way):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        futures = [pool.submit(calls.double, number) for number in range(200)]
        bad = pool.submit(calls.die)
        futures += [pool.submit(calls.double, number) for number in range(200, 400)]
        assert [future.result() for future in futures] == [2 * number for number in range(400)]
        assert isinstance(bad.exception(), WorkerCrashed)


def test_a_dead_worker_is_replaced_for_a_task_that_waits_though_nothing_else_happens():
    with PidfdPoolExecutor(1) as pool:
        assert pool.submit(calls.double, 1).result(20) == 2
        bad, good = pool.submit(calls.die), pool.submit(calls.double, 2)
        assert good.result(20) == 4
        assert isinstance(bad.exception(20), WorkerCrashed)


def test_every_crashed_future_gets_an_instance_of_its_own(way):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        errors = [future.exception() for future in [pool.submit(calls.die) for _ in range(6)]]
    assert len({id(error) for error in errors}) == 6


def test_an_idle_worker_that_is_killed_is_replaced(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        for _ in range(20):
            pid = pool.submit(os.getpid).result()
            with Pidfd.open(pid) as worker:
                worker.send_signal(signal.SIGKILL)
            # Handed to a worker that may be dead already: it never ran there, so it runs elsewhere.
            assert pool.submit(os.getpid).result() != pid


def test_a_task_that_a_dead_worker_never_read_runs_elsewhere(way, tmp_path):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pid = pool.submit(os.getpid).result()
        with Pidfd.open(pid) as worker:
            worker.send_signal(signal.SIGSTOP)  # it cannot read, so what is sent stays in its channel
            future = pool.submit(os.getpid)
            large = pool.submit(len, bytes(3_000_000))
            worker.send_signal(signal.SIGKILL)
        assert future.result() != pid
        assert large.result() == 3_000_000


def test_a_task_that_was_read_is_never_run_twice(way, tmp_path):
    path = str(tmp_path / "runs")
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        future = pool.submit(calls.touch_and, path, "sleep")
        eventually(lambda: os.path.exists(path) and open(path).read().count("\n") == 1, "the task runs")
        with Pidfd.open(int(open(path).read())) as worker:
            worker.send_signal(signal.SIGKILL)
        assert isinstance(future.exception(), WorkerCrashed)
        assert pool.submit(calls.double, 2).result() == 4
    assert open(path).read().count("\n") == 1


def test_a_result_that_was_written_before_the_death_is_delivered(way):
    def die_afterwards():
        # Dies as soon as the result is on its way: when the main thread waits for the next task.
        threading.Thread(target=_die_when_idle, args=(threading.main_thread().ident,), daemon=True).start()
        return os.getpid(), b"x" * 100_000

    with PidfdPoolExecutor(1, mp_context=way) as pool:
        for _ in range(5):
            pid, data = pool.submit(die_afterwards).result()
            assert data == b"x" * 100_000
            eventually(lambda pid=pid: not is_alive(pid), "the worker has killed itself")


def test_all_that_a_worker_wrote_before_its_death_is_read(monkeypatch, tmp_path):
    """Many reads of it, when the host comes to look only after the worker's end."""
    begun, go_on = threading.Event(), threading.Event()

    def hold_up(_):
        begun.set()
        go_on.wait(20)

    with PidfdPoolExecutor(1, prefetch=60.0) as pool:
        pid = pool.submit(os.getpid).result()
        seem_quick(pool)  # so others are sent ahead
        monkeypatch.setattr(answers, "_READ_SIZE", 64)
        first = pool.submit(calls.run_until, str(tmp_path / "runs"), str(tmp_path / "release"))
        first.add_done_callback(hold_up)
        eventually((tmp_path / "runs").exists, "it runs")
        results = [pool.submit(calls.double, number) for number in range(20)]
        last = pool.submit(calls.die)
        behind = [pool.submit(calls.double, 1) for _ in range(200)]  # so many tasks are worth sending ahead
        eventually(lambda: len(pool._pool.machine.prefetched) > 21, "the others are ahead of it")
        (tmp_path / "release").touch()
        assert begun.wait(20)  # the pool thread is in a callback
        eventually(lambda: not is_alive(pid), "the worker has killed itself")
        go_on.set()
        assert [result.result(20) for result in results] == [2 * number for number in range(20)]
        assert isinstance(last.exception(20), WorkerCrashed)
        assert [future.result(20) for future in behind] == [2] * 200


def _die_when_idle(ident):
    while sys._current_frames()[ident].f_code.co_name not in ("receive_lean", "_receive_with_descriptors"):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_task_started_dies_with_its_worker(way):
    def start_and_die():
        import subprocess

        child = subprocess.Popen(["sleep", "1000"])
        grandchild = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE)
        raise_after = child.pid, grandchild.pid, int(grandchild.stdout.readline())
        open(path, "w").write(repr(raise_after))
        signal.raise_signal(signal.SIGKILL)

    import tempfile

    with tempfile.TemporaryDirectory() as folder, PidfdPoolExecutor(1, mp_context=way) as pool:
        path = folder + "/pids"
        assert isinstance(pool.submit(start_and_die).exception(), WorkerCrashed)
        pids = eval(open(path).read())
        eventually(lambda: not any(map(is_alive, pids)), "the descendants are dead")
        eventually(lambda: not any(map(is_zombie, pids)), "and reaped")


def test_orphans_that_end_later_are_reaped(way):
    def orphan():
        import subprocess

        done = subprocess.run(["sh", "-c", "sleep 0.2 & echo $!"], stdout=subprocess.PIPE, check=True)
        return int(done.stdout)

    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pid = pool.submit(orphan).result()
        eventually(lambda: not is_alive(pid) and not is_zombie(pid), "the orphan has ended and was reaped")


def test_200_kills_at_random_moments_lose_nothing_and_repeat_nothing(way, tmp_path):
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)

    def run(number):
        fd = os.open(f"{folder}/{number}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.write(fd, b".")
        os.close(fd)
        return number

    folder = str(tmp_path)
    outcomes = {}
    with PidfdPoolExecutor(3, mp_context=way) as pool:
        template = pool.submit(os.getppid).result()
        futures = {}
        kills = number = 0
        while kills < 200:
            for _ in range(5):
                futures[number] = pool.submit(run, number)
                number += 1
            victims = [pid for pid in children(template) if is_alive(pid)]
            if victims and chance.random() < 0.7:
                try:
                    with Pidfd.open(chance.choice(victims)) as victim:
                        victim.send_signal(signal.SIGKILL)
                    kills += 1
                except ProcessLookupError:
                    pass
            if chance.random() < 0.3:
                futures[number - 1].exception()
        for number, future in futures.items():
            error = future.exception(timeout=30)
            assert error is None or isinstance(error, WorkerCrashed), error
            outcomes[number] = future.result() if error is None else error
        eventually(lambda: not any(map(is_zombie, children(template))), "no zombie is left")
    for number, outcome in outcomes.items():
        runs = len((tmp_path / str(number)).read_bytes()) if (tmp_path / str(number)).exists() else 0
        assert runs <= 1, f"task {number} ran {runs} times"
        if not isinstance(outcome, WorkerCrashed):
            assert (outcome, runs) == (number, 1)


def test_on_crash_break_is_the_standards_behaviour(way):
    with PidfdPoolExecutor(2, mp_context=way, on_crash="break") as pool:
        running = pool.submit(calls.sleep, 60)
        bad = pool.submit(calls.die)
        queued = [pool.submit(calls.sleep, 60) for _ in range(3)]
        assert isinstance(bad.exception(timeout=20), WorkerCrashed)
        for future in (running, *queued):
            assert isinstance(future.exception(timeout=20), PoolBroken)
            assert isinstance(future.exception(), BrokenProcessPool)
        with pytest.raises(PoolBroken, match="on_crash"):
            pool.submit(calls.double, 2)


def test_a_task_that_forks_and_returns_in_the_child_gives_one_result(way):
    def fork():
        pid = os.fork()
        return "child" if not pid else (os.waitpid(pid, 0) and "parent")

    with PidfdPoolExecutor(1, mp_context=way) as pool:
        assert pool.submit(fork).result() == "parent"
        assert pool.submit(calls.double, 2).result() == 4


def test_a_task_that_closes_its_descriptors_costs_only_itself(way):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        assert isinstance(pool.submit(os.closerange, 3, 1000).exception(), WorkerCrashed)
        assert pool.submit(calls.double, 2).result() == 4


def test_a_task_that_writes_into_its_channel_costs_only_itself(way):
    def babble():
        for fd in range(3, 64):
            try:
                if stat.S_ISSOCK(os.fstat(fd).st_mode):
                    os.write(fd, b"\xff" * 64)
            except OSError:
                continue
        calls.sleep(60)

    with PidfdPoolExecutor(1, mp_context=way) as pool:
        assert isinstance(pool.submit(babble).exception(timeout=20), WorkerCrashed)
        assert pool.submit(calls.double, 2).result() == 4


# Who waits for the lost task is told before a worker is asked for in the place of the dead one. What is done to the
# pool meanwhile must find everything in order.
@pytest.mark.parametrize(
    ("meanwhile", "ends"),
    [
        (lambda pool: pool.submit(calls.double, 1), False),
        (lambda pool: (pool.stats(), pool.workers()), False),
        (lambda pool: pool.resize(1), False),
        (lambda pool: pool.resize(3), False),
        (lambda pool: pool.shutdown(wait=False), True),
        (lambda pool: pool.kill_workers(), True),
    ],
)
def test_what_is_done_upon_the_news_of_a_crash(pool, meanwhile, ends):
    told = []

    def when_told(future):
        told.append(future.exception())
        meanwhile(pool)
        told.append("and done")

    future = pool.submit(calls.die)
    future.add_done_callback(when_told)
    eventually(lambda: len(told) == 2, "the callback has come to its end")
    assert isinstance(told[0], WorkerCrashed)
    if ends:
        eventually(lambda: pool.stats().state == "CLOSED", "the pool has come to its end")
        assert pool.stats().deaths <= 3
    else:
        assert list(pool.map(calls.double, range(50))) == [2 * number for number in range(50)]
        eventually(lambda: pool.stats().idle == pool.stats().level, "the dead one was replaced")


def test_a_crash_is_told_where_no_other_worker_can_be_started(way, monkeypatch):
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.submit(calls.double, 1).result()
        real, pairs = channels.pair, []

        def refuse_once():
            pairs.append("asked for")
            if len(pairs) == 1:
                raise OSError(errno.EMFILE, "no descriptor left")
            return real()

        monkeypatch.setattr(channels, "pair", refuse_once)
        assert isinstance(pool.submit(calls.die).exception(timeout=20), WorkerCrashed)
        assert pool.submit(calls.double, 2).result(timeout=20) == 4
        assert len(pairs) == 2
