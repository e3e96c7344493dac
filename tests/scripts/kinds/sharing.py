"""What a script shares with its tasks by means of multiprocessing: given to an initializer, or as an argument."""

from __future__ import annotations

from tests.scripts.kind import Kind

KINDS = [
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
    Kind(
        title="a Manager's Queue as an argument",
        script="""
        import multiprocessing as mp
        from concurrent.futures import ProcessPoolExecutor

        class Progress:
            def __init__(self, step):
                self.step = step

        def work(queue, steps):
            for step in range(steps):
                queue.put(Progress(step))

        if __name__ == "__main__":
            with mp.Manager() as manager, ProcessPoolExecutor(2) as pool:
                queue = manager.Queue()
                pool.submit(work, queue, 3).result()
                print([queue.get().step for _ in range(3)])
        """,
        expected="[0, 1, 2]",
    ),
    Kind(
        title="a RawArray in initargs",
        script="""
        import multiprocessing as mp
        from concurrent.futures import ProcessPoolExecutor

        def prepare(given):
            global cells
            cells = given

        def work(place):
            cells[place] = place * 10

        if __name__ == "__main__":
            cells = mp.get_context("{method}").RawArray("i", 4)
            with ProcessPoolExecutor(2, initializer=prepare, initargs=(cells,)) as pool:
                list(pool.map(work, range(4)))
            print(list(cells))
        """,
        expected="[0, 10, 20, 30]",
    ),
    Kind(
        title="records of workers through a Queue and a QueueListener, as in logging's cookbook",
        script="""
        import logging
        import logging.handlers
        import multiprocessing as mp
        import sys
        from concurrent.futures import ProcessPoolExecutor

        def prepare(queue):
            root = logging.getLogger()
            root.handlers = [logging.handlers.QueueHandler(queue)]
            root.setLevel(logging.INFO)

        def work(number):
            logging.getLogger("work").info("task %d", number)
            return number

        if __name__ == "__main__":
            queue = mp.get_context("{method}").Queue()
            handler = logging.StreamHandler(sys.stdout)
            handler.setFormatter(logging.Formatter("%(name)s %(funcName)s %(message)s"))
            listener = logging.handlers.QueueListener(queue, handler)
            listener.start()
            with ProcessPoolExecutor(2, initializer=prepare, initargs=(queue,)) as pool:
                pool.submit(work, 1).result()
            listener.stop()
        """,
        expected="work work task 1",
    ),
]
