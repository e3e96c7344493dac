"""gevent: threads, locks, sockets, polling, forking and signals are replaced, and libev reaps children in C."""

from __future__ import annotations

import pytest

from tests.hosts.observing import expect, python, run_clean

pytest.importorskip("gevent")

PATCHED = "gevent, patched"
PLAIN = "gevent, not patched"

BODY = '''
import gevent.monkey
gevent.monkey.patch_all()
import gevent, os, signal, sys, threading, time
from concurrent.futures import as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from tests.hosts.programs import tasks
from tests.hosts.programs.contender import ProcessPoolExecutor

def fork():
    """Fork the host, and have the child noticed even if it ends at once.

    gevent's os.fork begins to listen for children after the first was forked; gevent.subprocess does so before.
    """
    gevent.get_hub().loop.install_sigchld()
    return os.fork()

class Ticker:
    "A greenlet that counts while the others wait."
    def __init__(self):
        self.ticks = 0
        self.greenlet = gevent.spawn(self.run)
    def run(self):
        while True:
            gevent.sleep(0.01)
            self.ticks += 1
    def stop(self):
        self.greenlet.kill()
        return self.ticks
'''


def gevent_host(contender, code, *arguments, body=BODY, **options):
    options.setdefault("seconds", 10.0)
    return run_clean(contender, python(body + code, *arguments), **options)


@pytest.mark.case(PATCHED, "results, in one greenlet and in a hundred at once; map, wait, as_completed", ways="both")
def test_results(contender):
    out = gevent_host(
        contender,
        """
with ProcessPoolExecutor(2) as pool:
    assert pool.submit(tasks.double, 4).result(timeout=5) == 8
    found = [gevent.spawn(lambda n=n: pool.submit(tasks.double, n).result(timeout=5)) for n in range(100)]
    gevent.joinall(found, raise_error=True)
    assert [one.value for one in found] == [2 * n for n in range(100)]
    assert list(pool.map(tasks.double, range(50), timeout=5)) == [2 * n for n in range(50)]
    futures = [pool.submit(tasks.double, n) for n in range(20)]
    assert len(wait(futures, timeout=5).done) == 20
    assert len(list(as_completed(futures, timeout=5))) == 20
print("done")
""",
    )
    expect(out == "done\n", "wrong results", out)


@pytest.mark.case(PATCHED, "other greenlets go on while one waits for a result or the pool's end", ways="both")
def test_greenlets_stay_responsive(contender):
    out = gevent_host(
        contender,
        """
with ProcessPoolExecutor(1) as pool:
    pool.submit(tasks.pid).result(timeout=5)
    ticker = Ticker()
    pool.submit(tasks.sleep, 0.5).result(timeout=5)
    print(ticker.stop())
    ticker = Ticker()
    pool.submit(tasks.sleep, 0.5)
print(ticker.stop())
""",
    )
    expect(all(int(ticks) >= 10 for ticks in out.split()), "other greenlets stand still", out)


def test_greenlets_stay_responsive_while_submit_waits_for_room():
    out = gevent_host(
        "spawn",
        """
with ProcessPoolExecutor(1, max_pending=1) as pool:
    pool.submit(tasks.pid).result()
    pool.submit(tasks.sleep, 0.5)
    ticker = Ticker()
    pool.submit(tasks.pid).result()
    print(ticker.stop())
""",
    )
    assert int(out) >= 10


@pytest.mark.case(PATCHED, "a worker crashes: the exception comes, and the next result", ways="both")
def test_a_crash(contender):
    out = gevent_host(
        contender,
        """
with ProcessPoolExecutor(2) as pool:
    for end in (tasks.leave, tasks.die):
        error = pool.submit(end, 9).exception(timeout=5)
        assert isinstance(error, BrokenProcessPool), error
    print(pool.submit(tasks.double, 2).result(timeout=5))
""",
    )
    expect(out == "4\n", "no result after a crash", out)


@pytest.mark.case(PATCHED, "gevent's subprocesses end with their own exit codes while workers crash", ways="both")
def test_subprocesses_beside(contender):
    out = gevent_host(
        contender,
        """
import subprocess
def call(code):
    return subprocess.call(["sh", "-c", f"sleep 0.05; exit {code}"])
def crash(code):
    error = pool.submit(tasks.leave, code).exception(timeout=5)
    assert isinstance(error, BrokenProcessPool), error
with ProcessPoolExecutor(2) as pool:
    pool.submit(tasks.pid).result(timeout=5)
    calls = [gevent.spawn(call, code) for code in range(20)]
    crashes = [gevent.spawn(crash, code) for code in range(8)]
    gevent.joinall(calls + crashes, raise_error=True)
    assert [one.value for one in calls] == list(range(20)), [one.value for one in calls]
    print(pool.submit(tasks.double, 2).result(timeout=5))
""",
    )
    expect(out == "4\n", "no result at the end", out)


@pytest.mark.case(PATCHED, "the host's greenlets do not run on in a worker whose task lets others run", ways="both")
def test_no_greenlet_of_the_host_runs_in_a_worker(contender, tmp_path):
    out = gevent_host(
        contender,
        """
seen = set()
def note():
    while True:
        with open(sys.argv[1], "a") as file:
            file.write(f"{os.getpid()}\\n")
        gevent.sleep(0.01)
gevent.spawn(note)
gevent.sleep(0.05)
with ProcessPoolExecutor(2) as pool:
    for future in [pool.submit(tasks.sleep, 0.3) for _ in range(3)]:
        future.result(timeout=5)
print(os.getpid())
""",
        str(tmp_path / "pids"),
    )
    pids = set((tmp_path / "pids").read_text().split())
    expect(pids == set(out.split()), "greenlets of the host run in a worker, too", pids)


@pytest.mark.case(PATCHED, "callbacks of futures may start greenlets and set events", ways="both")
def test_callbacks_belong_to_the_greenlets(contender):
    out = gevent_host(
        contender,
        """
from gevent.event import AsyncResult
told = AsyncResult()
with ProcessPoolExecutor(1) as pool:
    pool.submit(tasks.double, 2).add_done_callback(lambda f: gevent.spawn(told.set, f.result()))
    print(told.get(timeout=5))
""",
    )
    expect(out == "4\n", "the callback's greenlet does not run", out)


@pytest.mark.case(PATCHED, "two pools that two greenlets start at once leave the signal mask as it was", ways="both")
def test_two_starts_at_once(contender):
    out = gevent_host(
        contender,
        """
before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
pools = [ProcessPoolExecutor(1) for _ in range(4)]
found = [gevent.spawn(lambda pool=pool: pool.submit(tasks.double, 1).result(timeout=5)) for pool in pools]
gevent.joinall(found, raise_error=True)
assert before == signal.pthread_sigmask(signal.SIG_BLOCK, ())
for pool in pools:
    pool.shutdown()
assert before == signal.pthread_sigmask(signal.SIG_BLOCK, ())
print("done")
""",
    )
    expect(out == "done\n", "the mask is another", out)


@pytest.mark.case(PATCHED, "the host forks while a task runs: the child uses the pool, the task ends", ways="both")
def test_a_fork_of_the_host(contender):
    out = gevent_host(
        contender,
        """
pool = ProcessPoolExecutor(1)
pool.submit(tasks.pid).result(timeout=5)
running = pool.submit(tasks.sleep, 0.3)
child = fork()
if not child:
    status = 1
    try:
        status = 0 if pool.submit(tasks.double, 2).result(timeout=5) == 4 else 2
        pool.shutdown()
    finally:
        os._exit(status)
assert running.result(timeout=5) > 0
assert os.waitpid(child, 0) == (child, 0)
pool.shutdown()
print("done")
""",
    )
    expect(out == "done\n", "the child cannot use the pool", out)


def test_a_greenlet_that_waits_for_a_result_is_told_in_the_forked_child(contender_way):
    out = gevent_host(
        contender_way,
        """
from pidfdpool import InheritedFutureError
pool = ProcessPoolExecutor(1)
running = pool.submit(tasks.sleep, 0.5)
waiting = gevent.spawn(running.exception, 5)
gevent.sleep(0.05)
child = fork()
if not child:
    status = 1
    try:
        status = 0 if isinstance(waiting.get(timeout=5), InheritedFutureError) else 2
    finally:
        os._exit(status)
assert waiting.get(timeout=5) is None
assert os.waitpid(child, 0) == (child, 0)
pool.shutdown()
print("done")
""",
    )
    assert out == "done\n"


@pytest.fixture(params=["spawn", "fork"])
def contender_way(request):
    return request.param


@pytest.mark.case(PATCHED, "the script ends without waiting: what was submitted is finished", ways="both")
def test_the_end_of_a_script(contender, tmp_path):
    gevent_host(
        contender,
        """
pool = ProcessPoolExecutor(2)
for n in range(6):
    pool.submit(tasks.touch_and_sleep, f"{sys.argv[1]}/{n}", 0.05)
""",
        str(tmp_path),
    )
    expect(len(list(tmp_path.iterdir())) == 6, "submitted tasks are not run", list(tmp_path.iterdir()))


@pytest.mark.case(PATCHED, "nothing is left open after shutdown; a second pool works", ways="both")
def test_nothing_is_left_open(contender):
    out = gevent_host(
        contender,
        """
def descriptors():
    names = [f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd")]
    return sorted(os.readlink(name) for name in names if os.path.lexists(name))
with ProcessPoolExecutor(1) as pool:
    pool.submit(tasks.double, 1).result(timeout=5)
before = descriptors()
for _ in range(3):
    with ProcessPoolExecutor(2) as pool:
        assert pool.submit(tasks.double, 1).result(timeout=5) == 2
assert len(descriptors()) <= len(before), (before, descriptors())
print("done")
""",
    )
    expect(out == "done\n", "descriptors are left open", out)


def test_a_pool_that_is_started_outside_of_the_main_thread_is_refused():
    """Its greenlet might never be let run again, and every future would hang."""
    out = gevent_host(
        "spawn",
        """
pool = ProcessPoolExecutor(1)
threads = gevent.get_hub().threadpool
def submit():
    try:
        pool.submit(tasks.double, 1)
    except RuntimeError as error:
        return str(error)
print(threads.apply(submit))
assert pool.submit(tasks.double, 1).result(timeout=5) == 2
print(threads.apply(lambda: pool.submit(tasks.double, 2).result(timeout=5)))
pool.shutdown()
""",
    )
    assert "started from the main thread" in out.splitlines()[0]
    assert out.splitlines()[1] == "4"


@pytest.mark.case(PATCHED, "greenlets and gevent's own threads submit and wait at the same time")
def test_greenlets_and_threads_together(contender):
    out = gevent_host(
        contender,
        """
def work():
    return [pool.submit(tasks.double, n).result(timeout=5) for n in range(50)][-1]
with ProcessPoolExecutor(2) as pool:
    pool.submit(tasks.pid).result(timeout=5)
    threads = gevent.get_hub().threadpool
    jobs = [threads.spawn(work) for _ in range(4)] + [gevent.spawn(work) for _ in range(4)]
    gevent.joinall(jobs, timeout=8)
    print({job.value for job in jobs})
""",
    )
    expect(out == "{98}\n", "results are missing", out)


UNPATCHED = BODY.replace("gevent.monkey.patch_all()", "")


@pytest.mark.case(PLAIN, "libev's child watchers tell the right exit codes while workers crash", ways="both")
def test_child_watchers_beside(contender):
    out = gevent_host(
        contender,
        """
from gevent import subprocess
pool = ProcessPoolExecutor(2)
pool.submit(tasks.pid).result(timeout=5)
started = [subprocess.Popen(["sh", "-c", f"sleep 0.1; exit {code}"]) for code in range(10)]
crashed = [pool.submit(tasks.leave, 3) for _ in range(4)]
gevent.joinall([gevent.spawn(one.wait) for one in started], timeout=5)
assert [one.returncode for one in started] == list(range(10)), [one.returncode for one in started]
for one in crashed:
    assert isinstance(one.exception(timeout=5), BrokenProcessPool)
print(pool.submit(tasks.double, 2).result(timeout=5))
pool.shutdown()
""",
        body=UNPATCHED,
    )
    expect(out == "4\n", "no result after a crash", out)


@pytest.mark.case(PLAIN, "greenlets go on while one waits for a future in gevent's thread pool", ways="both")
def test_waiting_in_the_thread_pool(contender):
    out = gevent_host(
        contender,
        """
with ProcessPoolExecutor(1) as pool:
    pool.submit(tasks.pid).result(timeout=5)
    ticker = Ticker()
    gevent.get_hub().threadpool.apply(pool.submit(tasks.sleep, 0.5).result)
    print(ticker.stop())
""",
        body=UNPATCHED,
    )
    expect(int(out) >= 10, "other greenlets stand still", out)
