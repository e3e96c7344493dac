"""Globals that do not pickle, and that tasks use: locks, queues, and what belongs to threads."""

from __future__ import annotations

from tests.scripts.kind import Kind, global_used

KINDS = [
    global_used(
        "threading.Lock",
        "import threading\n\nlock = threading.Lock()\ntotal = 0",
        "global total\nwith lock:\n    total += number\nreturn total",
        "3",
    ),
    global_used(
        "threading.RLock",
        "from threading import RLock\n\nlock = RLock()",
        "with lock, lock:\n    return number",
        "3",
    ),
    global_used(
        "threading.local",
        "import threading\n\nlocal = threading.local()",
        "if not hasattr(local, 'session'):\n    local.session = f'session {number}'\nreturn local.session",
        "session 3",
    ),
    global_used(
        "a subclass of threading.local",
        "import threading\n\nclass State(threading.local):\n    depth = 0\n\nstate = State()",
        "state.depth += number\nreturn state.depth",
        "3",
    ),
    global_used(
        "threading.Event",
        "import threading\n\nready = threading.Event()",
        "ready.set()\nreturn ready.wait(5), number",
        "(True, 3)",
    ),
    global_used(
        "threading.Semaphore and BoundedSemaphore",
        "from threading import BoundedSemaphore, Semaphore\n\nslots, places = Semaphore(2), BoundedSemaphore(1)",
        "with slots, places:\n    return slots.acquire(blocking=False)",
        "True",
    ),
    global_used(
        "threading.Condition and Barrier",
        "import threading\n\nchanged = threading.Condition()\nbarrier = threading.Barrier(1)",
        "with changed:\n    changed.notify_all()\nreturn barrier.wait(5), number",
        "(0, 3)",
    ),
    global_used(
        "queue.Queue and SimpleQueue",
        "import queue\n\njobs, done = queue.Queue(maxsize=5), queue.SimpleQueue()",
        "jobs.put(number)\ndone.put(jobs.get() + 1)\nreturn done.get()",
        "4",
    ),
    global_used(
        "ThreadPoolExecutor",
        "from concurrent.futures import ThreadPoolExecutor\n\nthreads = ThreadPoolExecutor(2)",
        "return list(threads.map(str, range(number)))",
        "['0', '1', '2']",
    ),
    global_used(
        "threading.Thread, started in the task",
        """
import threading

results = []
helper = threading.Thread(target=lambda: results.append("ran"))
""",
        "helper.start()\nhelper.join()\nreturn results",
        "['ran']",
        workers=1,
    ),
    global_used(
        "contextvars.ContextVar",
        'from contextvars import ContextVar\n\nrequest = ContextVar("request", default="none")',
        'before = request.get()\ntoken = request.set(f"r{number}")\nvalue = request.get()\n'
        "request.reset(token)\nreturn before, value",
        "('none', 'r3')",
    ),
    global_used(
        "contextvars.copy_context",
        """
import contextvars

user = contextvars.ContextVar("user")

def greet():
    return f"hello {user.get()}"
""",
        'context = contextvars.copy_context()\ncontext.run(user.set, "Ann")\nreturn context.run(greet)',
        "hello Ann",
    ),
    global_used(
        "asyncio.Lock, Semaphore and Queue",
        """
import asyncio

limit = asyncio.Semaphore(2)
lock = asyncio.Lock()

async def fetch(n):
    async with limit, lock:
        await asyncio.sleep(0)
        return n
""",
        "async def main():\n    return await asyncio.gather(*map(fetch, range(number)))\nreturn asyncio.run(main())",
        "[0, 1, 2]",
    ),
    Kind(
        title="a lock that an object of the script keeps",
        script="""
        import threading

        class Cache:
            def __init__(self):
                self._lock = threading.Lock()
                self._items = {}

            def get(self, key, make):
                with self._lock:
                    if key not in self._items:
                        self._items[key] = make(key)
                    return self._items[key]

        cache = Cache()
        made = []

        def double(number):
            made.append(number)
            return 2 * number

        def work(number):
            return cache.get(number, double), len(made)
        """,
        use="[pool.submit(work, n).result() for n in (1, 2, 1)]",
        workers=1,
        expected="[(2, 1), (4, 2), (2, 2)]",
    ),
    Kind(
        title="a lock as a class attribute, and one in a closure of a decorator",
        script="""
        import functools
        import threading

        class Account:
            _lock = threading.RLock()
            balance = 0

            @classmethod
            def add(cls, amount):
                with cls._lock:
                    cls.balance += amount
                    return cls.balance

        def synchronized(function):
            lock = threading.Lock()

            @functools.wraps(function)
            def wrapper(*args):
                with lock:
                    return function(*args)
            return wrapper

        @synchronized
        def work(amount):
            return Account.add(amount)
        """,
        use="[pool.submit(work, n).result() for n in (1, 2)]",
        workers=1,
        expected="[1, 3]",
    ),
    Kind(
        title="a Lock of multiprocessing as a global",
        script="""
        import multiprocessing as mp

        lock = mp.get_context("{method}").Lock()

        def work(number):
            with lock:
                return number
        """,
        use="list(pool.map(work, [1, 2, 3]))",
        expected="[1, 2, 3]",
    ),
    Kind(
        title="a Value of multiprocessing as a global, shared with the host",
        script="""
        import multiprocessing as mp

        total = mp.get_context("{method}").Value("i", 0)

        def work(number):
            with total:
                total.value += number
        """,
        use="[pool.submit(work, n).result() for n in (1, 2)] and total.value",
        expected="3",
        reason="as with spawn: the top of the script makes one for each worker",
    ),
]
