"""How often and when a script is run again for workers, and what becomes of the tasks meanwhile.

Each script writes a line when its top level runs: once as `__main__`, and then at most once for each template.
"""

from __future__ import annotations

import os
import signal

import pytest

from tests.conditions import MARK, eventually, is_alive, marked, processes_of_this_run
from tests.scripting import pids, run, runs, start

HEAD = """
LOCK = threading.Lock()  # which only running the script again brings into a worker
def plain(number):
    return number
def locked(number):
    with LOCK:
        return number
"""
ONCE = ["__main__", "__mp_main__"]


def guarded(use, options="2", more=""):
    """Return a script that uses a pool behind its guard."""
    lines = "".join(f"        {line}\n" for line in use.strip().splitlines())
    pool = f"    with PidfdPoolExecutor({options}) as pool:\n"
    return f'{HEAD}{more}\nif __name__ == "__main__":\n{pool}{lines}'


def test_it_is_not_run_if_nothing_needs_it(tmp_path):
    assert run(tmp_path, guarded("print(pool.submit(plain, 1).result(), sum(pool.map(plain, range(100))))")) == [
        "1 4950"
    ]
    assert runs(tmp_path) == ["__main__"]


@pytest.mark.costly_table
@pytest.mark.parametrize(
    "use",
    {
        "submit": "print(pool.submit(locked, 1).result())",
        "map": "print(list(pool.map(locked, [1]))[0])",
        "map of chunks": "print(list(pool.map(locked, range(100), chunksize=7))[1])",
        "arguments of map": "print(list(pool.map(call, [locked, locked]))[0])",
        "a large call": "print(pool.submit(locked, 'x' * 200_000).result()[:0] + '1')",
        "an argument": "print(pool.submit(call, locked).result())",
        "run": "import asyncio\nprint(asyncio.run(pool.run(locked, 1)))",
        "amap": "import asyncio\nasync def all_of():\n    return [x async for x in pool.amap(locked, [1])]\n"
        "print(asyncio.run(all_of())[0])",
    }.values(),
    ids=lambda use: use[:40],
)
def test_it_is_run_once_however_a_call_needs_it(tmp_path, use):
    both = f"{use}\nassert pool.submit(plain, 1).result() == 1\n{use}"
    assert run(tmp_path, guarded(both, more="def call(function):\n    return function(1)\n")) == ["1", "1"]
    assert runs(tmp_path) == ONCE


def test_also_if_something_else_is_lacking_that_it_does_not_make(tmp_path):
    """Of two values that do not travel, the first is made by the script's top level, the second behind its guard."""
    use = "print(pool.submit(both).result())"
    more = "def both():\n    with LOCK:\n        return 'LATE' in globals() or LATE\n"
    script = guarded(use, more=more).replace("    with PidfdPool", "    LATE = threading.Lock()\n    with PidfdPool")
    assert run(tmp_path, script) == ["True"]
    assert runs(tmp_path) == ONCE


@pytest.mark.parametrize("options", ["1, initializer=init", "1, preload=init"], ids=["initializer", "preload"])
def test_it_is_run_before_the_first_worker_if_initializer_or_preload_needs_it(tmp_path, options):
    init = "SEEN = []\ndef init():\n    SEEN.append(locked(1))\ndef seen():\n    return SEEN\n"
    use = "print(pool.submit(seen).result(), pool.submit(locked, 1).result(), pool.stats().deaths)"
    assert run(tmp_path, guarded(use, options, init)) == ["[1] 1 0"]
    assert runs(tmp_path) == ONCE


def test_it_is_never_run_in_the_fork_way(tmp_path):
    assert run(tmp_path, guarded("print(pool.submit(locked, 1).result())", "1, mp_context='fork'")) == ["1"]
    assert runs(tmp_path) == ["__main__"]


def test_outdated_workers_are_replaced_and_no_task_is_lost_or_run_twice(tmp_path):
    more = """
def note(number):
    with open("done", "a") as file:
        file.write(f"{number}\\n")
    return number
def note_locked(number):
    with LOCK:
        return note(number)
"""
    use = """
deaths = []
pool.subscribe(deaths.append)
assert list(pool.map(plain, range(10), chunksize=1)) == list(range(10))
futures = [pool.submit(note_locked if number % 10 == 9 else note, number) for number in range(200)]
assert [future.result() for future in futures] == list(range(200))
stats = pool.stats()
print(stats.retries, stats.crashes, 1 <= stats.deaths <= 2, {death.cause.name for death in deaths})
"""
    assert run(tmp_path, guarded(use, more=more)) == ["0 0 True {'SCRIPT'}"]
    assert sorted(map(int, (tmp_path / "done").read_text().split())) == list(range(200))
    assert runs(tmp_path) == ONCE


def test_each_template_runs_it_once(tmp_path):
    """If a template is killed another one follows, and has to run the script, too."""
    use = """
import os, signal, time
def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
for count in (1, 2, 3):
    assert pool.submit(locked, 1).result() == 1
    with open("runs") as file:
        lines = file.read().splitlines()
    assert len(lines) == 1 + count, lines
    os.kill(int(lines[-1].split()[0]), signal.SIGKILL)
    until(lambda: pool.stats().deaths == count)
"""
    run(tmp_path, guarded(use, "1"))
    assert runs(tmp_path)[:4] == ["__main__", *["__mp_main__"] * 3]
    assert len(set(pids(tmp_path))) == len(pids(tmp_path)) <= 5, "the last one may have come to it as well"


def test_two_pools_run_it_once_each(tmp_path):
    use = """
with PidfdPoolExecutor(1) as other:
    first, second = pool.submit(locked, 1), other.submit(locked, 2)
    print(first.result(), second.result())
"""
    assert run(tmp_path, guarded(use)) == ["1 2"]
    assert runs(tmp_path) == [*ONCE, "__mp_main__"]


@pytest.mark.parametrize("inner", ["plain", "locked"])
def test_a_pool_in_a_task_can_run_it(tmp_path, inner):
    more = f"""
def nested():
    with PidfdPoolExecutor(1) as pool:
        return [pool.submit({inner}, number).result(20) for number in range(3)]
def nested_locked():
    with LOCK:
        pass
    return nested()
"""
    use = "print(pool.submit(nested).result(), pool.submit(nested_locked).result())"
    assert run(tmp_path, guarded(use, "1", more)) == ["[0, 1, 2] [0, 1, 2]"]
    assert 2 <= len(runs(tmp_path)) <= 4


@pytest.mark.parametrize("options", ["2, max_tasks_per_child=1", "2, idle_timeout=0.01, min_workers=0"])
def test_replaced_workers_do_not_run_it_again(tmp_path, options):
    use = """
for number in range(10):
    assert pool.submit(plain, number).result() == number
    assert pool.submit(locked, number).result() == number
futures = [pool.submit(locked if number % 2 else plain, number) for number in range(20)]
print(sum(future.result() for future in futures))
"""
    assert run(tmp_path, guarded(use, options)) == ["190"]
    assert runs(tmp_path) == ONCE


def test_concurrent_submits_run_it_once(tmp_path):
    use = """
wrong = []
def submit(n):
    for number in range(20):
        function = locked if (number + n) % 3 else plain
        if pool.submit(function, (n, number)).result() != (n, number):
            wrong.append(number)
threads = [threading.Thread(target=submit, args=(n,)) for n in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(wrong)
"""
    assert run(tmp_path, guarded(use)) == ["[]"]
    assert runs(tmp_path) == ONCE


def test_no_process_is_left_if_the_host_is_killed_while_it_runs(tmp_path):
    """The script stays in its top level when it is run again, so nothing in it watches the host."""
    text = """
    import time
    if __name__ != "__main__":
        open("again", "w").close()
        time.sleep(1000)
    """
    mark = marked("again")
    with start(tmp_path, text + guarded("pool.submit(locked, 1).result()"), env=mark) as host:
        eventually((tmp_path / "again").exists, "the script runs again")
        assert len(processes_of_this_run(mark[MARK])) >= 2
        host.send_signal(signal.SIGKILL)
        eventually(lambda: not processes_of_this_run(mark[MARK]), "nothing is left")


def test_the_host_does_not_run_it(tmp_path):
    run(tmp_path, guarded("import os\nprint(pool.submit(locked, os.getpid()).result())"))
    main, again = pids(tmp_path)
    assert main != again
    assert not is_alive(again)
    assert os.path.exists(tmp_path / "runs")


def test_a_large_call_finds_the_state_that_the_script_set_up(tmp_path):
    """That the call needs the script is also known if it lies in shared memory."""
    assert run(tmp_path, """
        import decimal
        decimal.getcontext().prec = 50
        def look(data): return decimal.getcontext().prec, len(data)
        if __name__ == "__main__":
            with PidfdPoolExecutor(1) as pool:
                print([pool.submit(look, b"x" * (1 << 20)).result() for _ in range(3)])
        """) == ["[(50, 1048576), (50, 1048576), (50, 1048576)]"]  # fmt: skip
