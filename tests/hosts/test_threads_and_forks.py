"""A host with threads starts a pool: whatever locks they hold at that moment, tasks work, and threads stay."""

from __future__ import annotations

import pytest

from tests.hosts.ending import started
from tests.hosts.observing import expect, within

SECTION = "Threads of the host, and forks"

BEGIN = """
import json, logging, os, random, subprocess, sys, threading, time
from tests.hosts.programs import lives, tasks
from tests.hosts.programs.contender import ProcessPoolExecutor

path = sys.argv[1]
"""


def expect_said(contender, folder, code, wanted, **options):
    """Run a host that prints what it has seen as JSON, and fail the case unless that is what it should be."""
    with started(contender, folder, BEGIN + code, str(folder / "path"), **options) as host:
        host.wait(12 if contender == "standard" else 50)
        seen = host.report()
        expect(seen == wanted, seen if isinstance(seen, str) else f"a wrong result: {seen}", host.err)
        host.expect_end(0, quiet=False)


# Threads that log into a pipe which is read slowly spend nearly all their time in write(), holding the lock of the
# stream's buffer. So the pool is nearly always started while that is held.
SLOWLY_READ = """
reader, writer = os.pipe()
def read_slowly():
    while os.read(reader, 2000):
        time.sleep(0.0005)
threading.Thread(target=read_slowly, daemon=True).start()
"""


@pytest.mark.case(SECTION, "tasks log, while threads of the host log without pause as the pool starts", ways="both")
def test_logging(contender, tmp_path):
    code = f"""{SLOWLY_READ}
logging.basicConfig(level=logging.INFO, stream=open(writer, "w"))
lives.in_threads(2, lambda: logging.info("x" * 300))
print(json.dumps([lives.start_once(lives.log, "from a task") for _ in range(4)][-1]), flush=True)
os._exit(0)
"""
    expect_said(contender, tmp_path, code, "from a task")


@pytest.mark.case(SECTION, "tasks log to a file, while threads of the host log to it as the pool starts", ways="both")
def test_logging_to_a_file(contender, tmp_path):
    code = """
logging.basicConfig(level=logging.INFO, filename=path)
stop = lives.in_threads(3, lambda: (logging.info("x" * 2000), time.sleep(0.0005)))
said = [lives.start_once(lives.log, "from a task") for _ in range(4)][-1]
stop()
print(json.dumps(said), flush=True)
"""
    expect_said(contender, tmp_path, code, "from a task")


@pytest.mark.case(
    SECTION, "tasks print, while threads of the host print without pause as the pool starts", ways="both"
)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_printing(contender, stream, tmp_path):
    code = f"""{SLOWLY_READ}
say = os.fdopen(os.dup(1), "w")
os.dup2(writer, {{"stdout": 1, "stderr": 2}}[{stream!r}])
lives.in_threads(2, lambda: print("x" * 300, file=sys.{stream}))
said = [lives.start_once(lives.write_line, {stream!r}, "from a task") for _ in range(4)][-1]
print(json.dumps(said), file=say, flush=True)
os._exit(0)
"""
    expect_said(contender, tmp_path, code, "from a task")


MULTIPLYING = """
wanted = [lives.multiply(seed) for seed in range(4)]
{noise}
with ProcessPoolExecutor(2) as pool:
    futures = [pool.submit(lives.multiply, seed) for seed in range(4)]
    try:
        found = [future.result(lives.PATIENCE) for future in futures]
    except TimeoutError:
        print(json.dumps("a task hangs"), flush=True)
        os._exit(0)
same = all(abs(one - other) < 1e-6 for one, other in zip(found, wanted))
print(json.dumps("works" if same else "a task computes something else"), flush=True)
os._exit(0)
"""


@pytest.mark.case(SECTION, "tasks multiply matrices (numpy, OpenBLAS), as the host did before", ways="both")
def test_blas_before(contender, tmp_path):
    pytest.importorskip("numpy")
    expect_said(contender, tmp_path, MULTIPLYING.format(noise=""), "works")


# Not with fork: OpenBLAS stops its threads for a fork, and not where one of the host's is waiting for them.
@pytest.mark.case(SECTION, "tasks multiply matrices (numpy, OpenBLAS), as threads of the host do all the time")
def test_blas_meanwhile(contender, tmp_path):
    pytest.importorskip("numpy")
    noise = "lives.in_threads(2, lambda: (lives.multiply(0), time.sleep(0.002)))"
    expect_said(contender, tmp_path, MULTIPLYING.format(noise=noise), "works")


@pytest.mark.case(
    SECTION, "threads of the host take locks of malloc, the resolver and others; tasks do, too", ways="both"
)
def test_many_locks(contender, tmp_path):
    code = """
stop = lives.in_threads(4, lambda: (lives.use_much_of_the_interpreter(random.randrange(9)), time.sleep(0.001)))
said = [lives.start_once(lives.use_much_of_the_interpreter, number) for number in range(4)][-1]
stop()
print(json.dumps(said), flush=True)
"""
    expect_said(contender, tmp_path, code, 200)


IMPORTING = """
os.environ["SLOW_MODULE"] = path
def import_it():
    from tests.hosts.programs import slow_module
importing = threading.Thread(target=import_it)
importing.start()
while not os.path.exists(path):
    time.sleep(0.001)
"""


@pytest.mark.case(
    SECTION, "the pool starts while another thread imports a slow module; tasks do not need it", ways="both"
)
def test_an_import_in_progress(contender, tmp_path):
    code = f"""{IMPORTING}
said = lives.start_once(tasks.double, 21)
print(json.dumps(said), flush=True)
importing.join()
"""
    expect_said(contender, tmp_path, code, 42)


@pytest.mark.case(SECTION, "the pool starts while another thread imports a slow module; tasks import it, too")
def test_an_import_in_progress_that_tasks_need(contender, tmp_path):
    code = f"""{IMPORTING}
said = lives.start_once(lives.answer_of_slow_module)
print(json.dumps(said), flush=True)
importing.join()
"""
    expect_said(contender, tmp_path, code, 42)


@pytest.mark.parametrize("name", ["faulthandler", "traceback", "pidfdpool.worker.process"])
def test_a_forked_template_waits_for_no_import_of_another_threads(name, tmp_path):
    """What processes of ours import after the fork must not be locked by a thread that the fork left behind."""
    code = f"""
name = {name!r}
class SlowFinder:
    def find_spec(self, wanted, *_):
        if wanted == name and threading.current_thread() is slow:
            entered.set()
            time.sleep(1.0)
sys.modules.pop(name, None)
entered = threading.Event()
slow = threading.Thread(target=__import__, args=(name,))
sys.meta_path.insert(0, SlowFinder())
slow.start()
assert entered.wait(10)
print(json.dumps(lives.start_once(tasks.double, 21)), flush=True)
"""
    expect_said("fork", tmp_path, code, 42)


@pytest.mark.case(
    SECTION, "threads of the host write their pid into a file all the time; only the host's is in it", ways="both"
)
def test_threads_stay_in_the_host(contender, tmp_path):
    code = """
stop = lives.in_threads(3, lambda: lives.append(path, os.getpid(), 0.001))
with ProcessPoolExecutor(2) as pool:
    list(pool.map(tasks.sleep, [0.05] * 8))
stop()
print(json.dumps(set(map(int, open(path))) == {os.getpid()}), flush=True)
"""
    expect_said(contender, tmp_path, code, wanted=True)


@pytest.mark.case(SECTION, "many threads submit the pool's first tasks at once", ways="both")
def test_many_first_submits(contender, tmp_path):
    code = """
pool = ProcessPoolExecutor(2)
together = threading.Barrier(8)
found = []
def submit():
    together.wait()
    found.append(pool.submit(tasks.double, 4).result(lives.PATIENCE))
threads = [threading.Thread(target=submit) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(found), flush=True)
pool.shutdown()
"""
    expect_said(contender, tmp_path, code, [8] * 8)


@pytest.mark.case(SECTION, "the pool starts inside a running asyncio loop; tasks run loops of their own", ways="both")
def test_loops_in_tasks(contender, tmp_path):
    code = """
import asyncio
async def main():
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(2) as pool:
        calls = [loop.run_in_executor(pool, lives.run_a_loop_of_its_own, 0.01) for _ in range(4)]
        return await asyncio.wait_for(asyncio.gather(*calls), lives.PATIENCE)
print(json.dumps(asyncio.run(main())), flush=True)
"""
    expect_said(contender, tmp_path, code, ["slept"] * 4)


STARTS = f"""{SLOWLY_READ}
logging.basicConfig(level=logging.INFO, stream=open(writer, "w"))
lives.in_threads(1, lambda: (logging.info("x" * 300), time.sleep(0.002)))
lives.in_threads(1, lambda: (lives.use_much_of_the_interpreter(random.randrange(9)), time.sleep(0.002)))
for _ in range(int(sys.argv[2])):
    assert lives.start_once(lives.log, "from a task") == "from a task"
    lives.append(path, os.getpid())
print(json.dumps("works"), flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("count", [25, pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(300)])])
def test_start_after_start_in_a_host_with_threads(way, count, tmp_path):
    """No start may hang, and each of them is bounded: every so often a lock is held when the pool starts."""
    with started(way, tmp_path, BEGIN + STARTS, str(tmp_path / "path"), str(count)) as host:
        for done in range(1, count + 1):
            within(
                20,
                lambda: host.process.poll() is not None or _lines(tmp_path) >= done,
                f"start number {done} hangs",
                lambda: host.err,
            )
        host.wait(20)
        expect(host.report() == "works", "a start fails", host.err)
        host.expect_end(0)


def _lines(folder):
    path = folder / "path"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_random_numbers_after_a_fork(tmp_path):
    """What docs/forking.md says of them: `random` differs between workers, numpy's global generator does not."""
    pytest.importorskip("numpy")
    code = """
import numpy
numpy.random.seed(1)
random.seed(1)
with ProcessPoolExecutor(2) as pool:
    futures = [pool.submit(lives.draw, f"{path}-{number}", 2) for number in range(2)]
    (one, numpy_one), (other, numpy_other) = [future.result(lives.PATIENCE) for future in futures]
print(json.dumps([one != other, numpy_one == numpy_other]), flush=True)
"""
    expect_said("fork", tmp_path, code, [True, True])
