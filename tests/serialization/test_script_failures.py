"""Scripts that cannot be run again, or that fail when they are, and the errors of tasks that need them."""

from __future__ import annotations

import pytest

from tests.scripting import run, runs

FUNCTIONS = """
EARLY = threading.Lock()
def plain(number):
    return number
def early():
    with EARLY:
        return "early"
def late():
    with LATE:
        return "late"
def told(error):
    print(type(error).__name__)
    for line in str(error).splitlines():
        print(line)
"""
LATE = "LATE = threading.Lock()\n"
USE = """
if __name__ == "__main__":
    with PidfdPoolExecutor(1) as pool:
        print(pool.submit(plain, 1).result(), pool.submit(early).result())
        told(pool.submit(late).exception())
        print(pool.submit(plain, 2).result(), pool.submit(early).result())
"""


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("raise ValueError('not twice')", "ValueError: not twice"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("pool = PidfdPoolExecutor(1); pool.submit(plain, 1)", "RuntimeError: a pool was used"),
    ],
    ids=["raises", "exits", "is interrupted", "uses a pool"],
)
def test_values_made_before_the_failure_are_available_and_later_ones_refused(tmp_path, trouble, said):
    lines = run(tmp_path, f'{FUNCTIONS}\nif __name__ != "__main__":\n    {trouble}\n{LATE}{USE}')
    assert lines[0] == "1 early"
    assert lines[1] == "GlobalNotAvailable"
    text = " ".join(lines[2:-1])
    for part in ("'LATE'", "_thread.lock", "late", "initializer=", "mp_context='fork'", said, "script.py, line"):
        assert part in text
    assert lines[-1] == "2 early"
    assert runs(tmp_path) == ["__main__", "__mp_main__"]


def test_its_output_is_printed(tmp_path):
    text = f'{FUNCTIONS}\nprint("top of", __name__)\n{LATE}{USE}'.replace("told(pool.submit(late).exception())", "")
    assert sorted(run(tmp_path, text)) == ["1 early", "2 early", "top of __main__", "top of __mp_main__"]


def test_without_a_guard_it_is_never_run_again(tmp_path):
    text = f"""{FUNCTIONS}{LATE}
import multiprocessing
def child():
    return None
def starts(method):
    process = multiprocessing.get_context(method).Process(target=child)
    process.start()
    process.join()
    return process.exitcode
pool = PidfdPoolExecutor(1)
futures = [pool.submit(plain, 1), pool.submit(late), pool.submit(plain, 2)]
print(futures[0].result(), futures[2].result())
told(futures[1].exception())
print(list(pool.map(plain, [1, 2])), pool.submit(starts, "fork").result(20))
pool.submit(starts, "spawn").exception(20)
pool.shutdown()
"""
    first, kind, *told, last = run_loudly(tmp_path, text)
    assert (first, kind, last) == ("1 2", "GlobalNotAvailable", "[1, 2] 0")
    for part in ("'LATE'", "_thread.lock", "used by 'late'", "cannot pickle", "has no `if __name__", "initializer="):
        assert part in " ".join(told)
    assert runs(tmp_path) == ["__main__"]


def run_loudly(folder, text):
    """Run a script that may write to standard error; return the lines that it printed."""
    from tests.scripting import start

    with start(folder, text) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.splitlines()


def test_a_global_that_only_the_guarded_part_defines(tmp_path):
    lines = run(
        tmp_path,
        f"""{FUNCTIONS}
if __name__ == "__main__":
    LATE = threading.Lock()
    with PidfdPoolExecutor(1) as pool:
        told(pool.submit(late).exception())
        print(pool.submit(early).result())
""",
    )
    assert lines[0] == "GlobalNotAvailable"
    assert "the script does not define LATE outside of its guard" in lines[1]
    assert lines[-1] == "early"


@pytest.mark.parametrize("change", ["os.remove(__file__)", "open(__file__, 'w').write('1 +')"])
def test_a_script_file_that_was_changed_meanwhile(tmp_path, change):
    """The file was read when the pool learnt of the script. That it cannot be run any more is an ordinary refusal."""
    use = f"""
if __name__ == "__main__":
    with PidfdPoolExecutor(1) as pool:
        print(pool.submit(plain, 1).result())
        {change}
        told(pool.submit(late).exception())
        print(pool.submit(plain, 2).result())
"""
    lines = run(tmp_path, f"{FUNCTIONS}{LATE}{use}")
    assert (lines[0], lines[1], lines[-1]) == ("1", "GlobalNotAvailable", "2")


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_processes_that_a_task_starts(tmp_path, method):
    text = f"""{FUNCTIONS}
import multiprocessing
def child(connection):
    connection.send("from the child")
def starts(method):
    context = multiprocessing.get_context(method)
    here, there = context.Pipe()
    process = context.Process(target=child, args=(there,))
    process.start()
    got = here.recv()
    process.join()
    return got, process.exitcode
def starts_locked(method):
    with EARLY:
        return starts(method)
if __name__ == "__main__":
    with PidfdPoolExecutor(1) as pool:
        for function in (starts, starts_locked, starts):
            print(pool.submit(function, {method!r}).result(30))
"""
    assert run(tmp_path, text) == ["('from the child', 0)"] * 3
