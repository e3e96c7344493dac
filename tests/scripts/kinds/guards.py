"""Scripts that tell host and workers apart in other ways, and whose top must be run with care."""

from __future__ import annotations

from tests.scripts.kind import Kind

_LOCKED = """
import threading

lock = threading.Lock()

def work(number):
    with lock:
        return number + 1
"""

KINDS = [
    Kind(
        title='guarded by current_process().name == "MainProcess"',
        script=f"""
import multiprocessing as mp
from concurrent.futures import ProcessPoolExecutor
{_LOCKED}
if mp.current_process().name == "MainProcess":
    with ProcessPoolExecutor(2) as pool:
        print(list(pool.map(work, [1, 2])))
""",
        expected="[2, 3]",
    ),
    Kind(
        title="guarded by parent_process() is None",
        script=f"""
import multiprocessing as mp
from concurrent.futures import ProcessPoolExecutor
{_LOCKED}
if mp.parent_process() is None:
    with ProcessPoolExecutor(2) as pool:
        print(list(pool.map(work, [1, 2])))
""",
        expected="[2, 3]",
    ),
    Kind(
        title="main() returns at once in workers",
        script=f"""
from concurrent.futures import ProcessPoolExecutor
{_LOCKED}
def main():
    if __name__ != "__main__":
        return
    with ProcessPoolExecutor(2) as pool:
        print(list(pool.map(work, [1, 2])))

main()
""",
        expected="[2, 3]",
    ),
    Kind(
        title="two guards, with definitions between them",
        script=f"""
from concurrent.futures import ProcessPoolExecutor

if "__main__" == __name__:
    print("starting")
{_LOCKED}
if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool:
        print(list(pool.map(work, [1, 2])))
""",
        expected="starting\n[2, 3]",
    ),
    Kind(
        title="a top that makes a file once, and refuses to make it again",
        script=f"""
import os
from concurrent.futures import ProcessPoolExecutor
{_LOCKED}
if __name__ == "__main__":
    os.mkdir("output")

    with ProcessPoolExecutor(2) as pool:
        print(list(pool.map(work, [1, 2])), sorted(os.listdir(".")))
""",
        expected="[2, 3] ['output', 'script.py']",
    ),
    Kind(
        title="sys.argv, read at the top and in the task",
        script=f"""
import argparse
import sys
{_LOCKED}
parser = argparse.ArgumentParser()
parser.add_argument("mode")
parser.add_argument("--level", type=int, default=1)
options = parser.parse_args()

def look():
    with lock:
        return options.mode, options.level, sys.argv[1:]
""",
        use="pool.submit(look).result()",
        arguments=("fast", "--level", "3"),
        expected="('fast', 3, ['fast', '--level', '3'])",
    ),
    Kind(
        title="the host fills a global with what does not pickle; the task's branch does not use it",
        script="""
        import threading
        from concurrent.futures import ProcessPoolExecutor

        lock = None
        rows = []

        def save(row):
            with lock:
                rows.append(row)

        def work(number):
            if number < 0:
                save(number)
            return number + 1

        if __name__ == "__main__":
            lock = threading.Lock()
            with ProcessPoolExecutor(2) as pool:
                for result in pool.map(work, [1, 2]):
                    save(result)
            print(rows)
        """,
        expected="[2, 3]",
    ),
    Kind(
        title="an object that keeps its pool, and leaves it out of its pickle",
        script="""
        from concurrent.futures import ProcessPoolExecutor

        class Engine:
            def __init__(self, scale):
                self.scale = scale
                self.pool = ProcessPoolExecutor(2)

            def __getstate__(self):
                return {key: value for key, value in vars(self).items() if key != "pool"}

            def one(self, number):
                return self.scale * number

            def all(self, numbers):
                return list(self.pool.map(self.one, numbers))

        if __name__ == "__main__":
            engine = Engine(3)
            with engine.pool:
                print(engine.all([1, 2]))
        """,
        expected="[3, 6]",
    ),
    Kind(
        title="the pool as a global that functions of the host use",
        script="""
        from concurrent.futures import ProcessPoolExecutor

        pool = None

        def square(number):
            return number ** 2

        def squares(numbers):
            if pool is None:
                return list(map(square, numbers))
            return list(pool.map(square, numbers))

        def nested(numbers):
            return squares(numbers) if pool is None else square(numbers[0])

        if __name__ == "__main__":
            with ProcessPoolExecutor(2) as pool:
                print(squares([1, 2]))
        """,
        expected="[1, 4]",
    ),
    Kind(
        title="the standard streams, wrapped at the top",
        script="""
        import functools
        import io
        import sys

        print = functools.partial(print, flush=True)
        sys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding="utf-8", errors="replace", write_through=True)

        def work(number):
            print("task", number, "caf\\u00e9")
            return number
        """,
        use="pool.submit(work, 1).result()",
        env={"PYTHONIOENCODING": "ascii"},
        expected="task 1 caf\u00e9\n1",
    ),
]
