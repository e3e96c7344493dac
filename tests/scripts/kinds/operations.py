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
        title="a Lock, an Event and a Value of multiprocessing in initargs",
        script="""
        import multiprocessing as mp
        from concurrent.futures import ProcessPoolExecutor

        def prepare(*given):
            global lock, go, count
            lock, go, count = given

        def work(n):
            go.wait(10)
            with lock:
                count.value += n
            return count.value > 0

        if __name__ == "__main__":
            ctx = mp.get_context("{method}")
            lock, go, count = ctx.Lock(), ctx.Event(), ctx.Value("i", 0)
            with ProcessPoolExecutor(2, initializer=prepare, initargs=(lock, go, count)) as pool:
                futures = [pool.submit(work, n) for n in range(1, 5)]
                go.set()
                print(all(future.result() for future in futures), count.value)
        """,
        expected="True 10",
    ),
    Kind(
        title="a Queue of multiprocessing in initargs",
        script="""
        import multiprocessing as mp
        from concurrent.futures import ProcessPoolExecutor

        def prepare(queue):
            global events
            events = queue

        def work(n):
            events.put(("done", n))
            return n

        if __name__ == "__main__":
            queue = mp.get_context("{method}").Queue()
            with ProcessPoolExecutor(2, initializer=prepare, initargs=(queue,)) as pool:
                list(pool.map(work, range(3)))
                print(sorted(queue.get(timeout=10) for _ in range(3)))
        """,
        expected="[('done', 0), ('done', 1), ('done', 2)]",
    ),
    Kind(
        title="a Manager's dict and lock as arguments",
        script="""
        import multiprocessing as mp
        from concurrent.futures import ProcessPoolExecutor

        def count(words, lock, totals):
            for word in words:
                with lock:
                    totals[word] = totals.get(word, 0) + 1

        if __name__ == "__main__":
            with mp.Manager() as manager, ProcessPoolExecutor(2) as pool:
                totals, lock = manager.dict(), manager.Lock()
                for future in [pool.submit(count, text.split(), lock, totals) for text in ("a b", "b c")]:
                    future.result()
                print(sorted(totals.items()))
        """,
        expected="[('a', 1), ('b', 2), ('c', 1)]",
    ),
    Kind(
        title="a pipe end of multiprocessing as an argument",
        script="""
        import multiprocessing as mp
        from concurrent.futures import ProcessPoolExecutor

        def report(connection, text):
            connection.send(text.upper())
            return True

        if __name__ == "__main__":
            reader, writer = mp.Pipe(duplex=False)
            with ProcessPoolExecutor(2) as pool:
                print(pool.submit(report, writer, "hello").result(), reader.recv())
        """,
        expected="True HELLO",
    ),
    Kind(
        title="a socket as an argument",
        script="""
        import socket
        from concurrent.futures import ProcessPoolExecutor

        def answer(connection):
            connection.sendall(connection.recv(100).upper())
            connection.close()

        if __name__ == "__main__":
            ours, theirs = socket.socketpair()
            with ours, theirs, ProcessPoolExecutor(2) as pool:
                done = pool.submit(answer, theirs)
                ours.sendall(b"ping")
                done.result()
                print(ours.recv(100))
        """,
        expected="b'PING'",
    ),
    Kind(
        title="shared memory as an argument",
        script="""
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing.shared_memory import SharedMemory

        def fill(memory, value):
            memory.buf[:4] = bytes([value] * 4)
            memory.close()

        if __name__ == "__main__":
            memory = SharedMemory(create=True, size=64)
            with ProcessPoolExecutor(2) as pool:
                pool.submit(fill, memory, 7).result()
            print(bytes(memory.buf[:5]))
            memory.close()
            memory.unlink()
        """,
        expected="b'\\x07\\x07\\x07\\x07\\x00'",
    ),
]
