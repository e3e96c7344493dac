"""What is done with functions and objects of a script: given, returned, mapped, used to start workers."""

from __future__ import annotations

from tests.scripts.kind import Kind

KINDS = [
    Kind(
        title="a function as an argument and as a result",
        script="""
        def double(number):
            return 2 * number

        def apply(function, number):
            return function(number)

        def choose(name):
            return globals()[name]
        """,
        use='pool.submit(apply, double, 4).result(), pool.submit(choose, "double").result() is double',
        expected="(8, True)",
    ),
    Kind(
        title="a bound method",
        script="""
        class Model:
            def __init__(self, weight):
                self.weight = weight

            def predict(self, value):
                return self.weight * value
        """,
        use="list(pool.map(Model(3).predict, [1, 2]))",
        expected="[3, 6]",
    ),
    Kind(
        title="classmethod and staticmethod as tasks",
        script="""
        class Parser:
            base = 16

            @classmethod
            def parse(cls, text):
                return int(text, cls.base)

            @staticmethod
            def clean(text):
                return text.strip()
        """,
        use='pool.submit(Parser.parse, "ff").result(), pool.submit(Parser.clean, " x ").result()',
        expected="(255, 'x')",
    ),
    Kind(
        title="an object with __call__",
        script="""
        class Scale:
            def __init__(self, factor):
                self.factor = factor

            def __call__(self, number):
                return self.factor * number
        """,
        use="list(pool.map(Scale(4), [1, 2]))",
        expected="[4, 8]",
    ),
    Kind(
        title="a class as the task",
        script="""
        class Account:
            def __init__(self, owner, balance=0):
                self.owner, self.balance = owner, balance
        """,
        use='(lambda made: (type(made) is Account, made.owner))(pool.submit(Account, "Ann").result())',
        expected="(True, 'Ann')",
    ),
    Kind(
        title="map with several inputs and chunks",
        script="""
        def join(a, b):
            return f"{a}{b}"
        """,
        use='list(pool.map(join, "abc", range(3), chunksize=2))',
        expected="['a0', 'b1', 'c2']",
    ),
    Kind(
        title="as_completed, with a dictionary of futures",
        script="""
        from concurrent.futures import ProcessPoolExecutor
        from concurrent.futures import as_completed

        def measure(text):
            return len(text)

        def main():
            with ProcessPoolExecutor(2) as pool:
                futures = {pool.submit(measure, text): text for text in ("a", "bb", "ccc")}
                print(sorted((futures[done], done.result()) for done in as_completed(futures)))

        if __name__ == "__main__":
            main()
        """,
        expected="[('a', 1), ('bb', 2), ('ccc', 3)]",
    ),
    Kind(
        title="loop.run_in_executor",
        script="""
        import asyncio
        from concurrent.futures import ProcessPoolExecutor

        def square(number):
            return number * number

        async def main():
            loop = asyncio.get_running_loop()
            with ProcessPoolExecutor(2) as pool:
                print(await asyncio.gather(*(loop.run_in_executor(pool, square, n) for n in range(4))))

        if __name__ == "__main__":
            asyncio.run(main())
        """,
        expected="[0, 1, 4, 9]",
    ),
    Kind(
        title="submitted by threads of the host",
        script="""
        from concurrent.futures import ProcessPoolExecutor
        from concurrent.futures import ThreadPoolExecutor

        class Job:
            def __init__(self, number):
                self.number = number

        def work(job):
            return job.number + 1

        if __name__ == "__main__":
            with ProcessPoolExecutor(2) as pool, ThreadPoolExecutor(4) as threads:
                futures = list(threads.map(lambda number: pool.submit(work, Job(number)), range(8)))
                print([future.result() for future in futures])
        """,
        expected="[1, 2, 3, 4, 5, 6, 7, 8]",
    ),
    Kind(
        title="a done-callback that is a method of a class of the script",
        script="""
        from concurrent.futures import ProcessPoolExecutor

        class Progress:
            done = 0

            def note(self, future):
                self.done += future.result()

        def one(_):
            return 1

        if __name__ == "__main__":
            progress = Progress()
            with ProcessPoolExecutor(2) as pool:
                for number in range(5):
                    pool.submit(one, number).add_done_callback(progress.note)
            print(progress.done)
        """,
        expected="5",
    ),
    Kind(
        title="an initializer with initargs of the script",
        script="""
        from concurrent.futures import ProcessPoolExecutor

        class Settings:
            def __init__(self, scale):
                self.scale = scale

        settings = None

        def prepare(given):
            global settings
            settings = given

        def work(number):
            return settings.scale * number

        if __name__ == "__main__":
            with ProcessPoolExecutor(2, initializer=prepare, initargs=(Settings(10),)) as pool:
                print(list(pool.map(work, [1, 2, 3])))
        """,
        expected="[10, 20, 30]",
    ),
    Kind(
        title="an initializer that makes what does not pickle",
        script="""
        import sqlite3
        from concurrent.futures import ProcessPoolExecutor

        def connect(rows):
            global db
            db = sqlite3.connect(":memory:")
            db.execute("create table numbers (n)")
            db.executemany("insert into numbers values (?)", [(n,) for n in range(rows)])

        def total():
            return db.execute("select sum(n) from numbers").fetchone()[0]

        if __name__ == "__main__":
            with ProcessPoolExecutor(1, initializer=connect, initargs=(5,)) as pool:
                print(pool.submit(total).result())
        """,
        expected="10",
    ),
    Kind(
        title="random.seed in an initializer of the script",
        script="""
        import random
        from concurrent.futures import ProcessPoolExecutor

        def prepare(seed):
            random.seed(seed)

        def work():
            return random.randint(0, 10 ** 9)

        if __name__ == "__main__":
            with ProcessPoolExecutor(1, initializer=prepare, initargs=(7,)) as pool:
                there = [pool.submit(work).result() for _ in range(3)]
            random.seed(7)
            print(there == [work() for _ in range(3)])
        """,
        expected="True",
    ),
]
