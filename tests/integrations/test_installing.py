"""How a program comes to our pool: by a context, by install(), by `python -m pidfdpool.multiprocessing`."""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import os
import subprocess
import sys
import textwrap

import pytest

import pidfdpool.multiprocessing
from tests.conditions import ROOT
from tests.integrations import pool_calls as calls

STANDARD = multiprocessing.pool.Pool


@pytest.fixture
def installed():
    pidfdpool.multiprocessing.install()
    yield
    pidfdpool.multiprocessing.uninstall()


class TestContexts:
    @pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
    def test_a_context_is_the_standard_one_but_for_its_pool(self, method):
        context = pidfdpool.multiprocessing.get_context(method)
        assert isinstance(context, type(multiprocessing.get_context(method)))
        assert context.get_start_method() == method
        with context.Pool(1) as pool:
            assert type(pool) is pidfdpool.multiprocessing.Pool
            assert pool.apply(calls.square, (3,)) == 9
        if method == "fork":  # the other two leave processes of the standard library's behind
            process = context.Process(target=calls.square, args=(3,))
            process.start()
            process.join()
            assert process.exitcode == 0
            process.close()

    def test_a_context_shares_locks_with_workers(self):
        context = pidfdpool.multiprocessing.get_context("fork")
        event = context.Event()
        with context.Pool(1, initializer=event.set) as pool:
            pool.apply(calls.square, (3,))
            assert event.is_set()

    def test_there_is_no_other_start_method(self):
        with pytest.raises(ValueError, match="thread"):
            pidfdpool.multiprocessing.get_context("thread")

    def test_the_start_method_is_not_settled_by_a_pool(self):
        code = """
            import multiprocessing
            from pidfdpool.multiprocessing import Pool, install
            if __name__ == "__main__":
                Pool(1).terminate()
                install()
                multiprocessing.Pool(1).terminate()
                assert multiprocessing.get_start_method(allow_none=True) is None
        """
        subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, cwd=ROOT, timeout=90)


class TestInstall:
    def test_each_way_to_a_pool_leads_to_ours(self, installed):
        for make in (
            multiprocessing.Pool,
            multiprocessing.pool.Pool,
            multiprocessing.get_context("spawn").Pool,
            multiprocessing.get_context().Pool,
        ):
            with make(processes=1) as pool:
                assert isinstance(pool, pidfdpool.multiprocessing.Pool)
                assert pool.map(calls.square, [3]) == [9]

    def test_pools_of_threads_go_on_working(self):
        code = """
            import multiprocessing.pool, os
            import pidfdpool.multiprocessing
            if __name__ == "__main__":
                pidfdpool.multiprocessing.install()
                with multiprocessing.pool.ThreadPool(2) as pool:
                    assert pool.map(lambda _: os.getpid(), range(3)) == [os.getpid()] * 3
        """
        subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, cwd=ROOT, timeout=90)

    def test_it_is_undone(self):
        before = multiprocessing.Pool, multiprocessing.context.BaseContext.Pool
        pidfdpool.multiprocessing.install()
        pidfdpool.multiprocessing.install()
        assert multiprocessing.pool.Pool is not STANDARD
        pidfdpool.multiprocessing.uninstall()
        assert multiprocessing.pool.Pool is STANDARD
        assert (multiprocessing.Pool, multiprocessing.context.BaseContext.Pool) == before
        pidfdpool.multiprocessing.uninstall()
        assert multiprocessing.pool.Pool is STANDARD


PROGRAM = """
    import multiprocessing, sys, os
    import neighbour

    value = 5

    def work(number):
        return number * value * neighbour.factor

    if __name__ == "__main__":
        value = 7
        with multiprocessing.Pool(2) as pool:
            print(type(pool).__module__, sys.argv[1:], __file__ == sys.argv[0], pool.map(work, range(3)))
        sys.exit(3)
"""


class TestProgram:
    @pytest.fixture
    def script(self, tmp_path):
        (tmp_path / "neighbour.py").write_text("factor = 10\n")
        path = tmp_path / "program.py"
        path.write_text(textwrap.dedent(PROGRAM))
        return path

    def run(self, *arguments):
        command = [sys.executable, "-m", "pidfdpool.multiprocessing", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": ROOT}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=90, check=False)

    def test_a_script_runs_as_ever_with_our_pool(self, script):
        ended = self.run(script, "-x", "2")
        assert ended.stderr == ""
        expected = "pidfdpool.integrations.process_pool.pool ['-x', '2'] True [0, 70, 140]\n"
        assert (ended.returncode, ended.stdout) == (3, expected)

    def test_what_a_script_raises_is_told_with_its_file(self, tmp_path):
        path = tmp_path / "wrong.py"
        path.write_text("raise ZeroDivisionError('here')\n")
        ended = self.run(path)
        assert ended.returncode == 1
        assert str(path) in ended.stderr
        assert ended.stderr.endswith("ZeroDivisionError: here\n")

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            ([], 2, "usage: python -m pidfdpool.multiprocessing SCRIPT"),
            (["--help"], 0, "usage: python -m pidfdpool.multiprocessing SCRIPT"),
            (["/nowhere/x.py"], 2, "cannot open '/nowhere/x.py': No such file or directory"),
        ],
    )
    def test_bad_usage(self, arguments, code, said):
        ended = self.run(*arguments)
        assert ended.returncode == code
        assert said in ended.stdout + ended.stderr


class TestExit:
    def test_a_pool_that_is_open_at_the_end_is_terminated(self):
        code = """
            import time
            from pidfdpool.multiprocessing import Pool
            if __name__ == "__main__":
                pool = Pool(2)
                result = pool.map_async(time.sleep, [600] * 5)
                iterator = pool.imap(time.sleep, [600] * 500)
        """
        ended = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, timeout=90, capture_output=True, check=False
        )
        assert (ended.returncode, ended.stderr) == (0, b"")

    def test_what_a_closed_pool_has_accepted_is_finished(self):
        code = """
            import time
            from pidfdpool.multiprocessing import Pool
            if __name__ == "__main__":
                pool = Pool(2)
                pool.apply_async(print, ("done",))
                pool.close()
        """
        ended = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, timeout=90, capture_output=True, check=False
        )
        assert (ended.returncode, ended.stdout) == (0, b"done\n")
