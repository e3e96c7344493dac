"""Functions that decorators and functools have made."""

from __future__ import annotations

from tests.scripts.kind import Kind

KINDS = [
    Kind(
        title="a function that is wrapped by a decorator",
        script="""
        import functools

        def logged(function):
            @functools.wraps(function)
            def wrapper(*args, **kwargs):
                return f"{function.__name__}{args}", function(*args, **kwargs)
            return wrapper

        @logged
        def square(number):
            return number * number
        """,
        use="pool.submit(square, 3).result()",
        expected="('square(3,)', 9)",
    ),
    Kind(
        title="two decorators, one of them with arguments",
        script="""
        import functools

        def retry(times):
            def decorate(function):
                @functools.wraps(function)
                def wrapper(*args):
                    for attempt in range(times):
                        try:
                            return attempt, function(*args)
                        except ValueError:
                            pass
                return wrapper
            return decorate

        def upper(function):
            @functools.wraps(function)
            def wrapper(*args):
                return function(*args).upper()
            return wrapper

        calls = []

        @retry(times=3)
        @upper
        def flaky(text):
            calls.append(text)
            if len(calls) < 3:
                raise ValueError(text)
            return text
        """,
        use='pool.submit(flaky, "done").result()',
        workers=1,
        expected="(2, 'DONE')",
    ),
    Kind(
        title="a decorator that is a class",
        script="""
        import functools

        class Counted:
            def __init__(self, function):
                functools.update_wrapper(self, function)
                self.function = function
                self.calls = 0

            def __call__(self, *args):
                self.calls += 1
                return self.calls, self.function(*args)

        @Counted
        def square(number):
            return number * number

        def work(number):
            return square(number)
        """,
        use="[pool.submit(work, number).result() for number in (2, 3)]",
        workers=1,
        expected="[(1, 4), (2, 9)]",
    ),
    Kind(
        title="a decorator that registers functions",
        script="""
        HANDLERS = {}

        def handles(kind):
            def register(function):
                HANDLERS[kind] = function
                return function
            return register

        @handles("add")
        def add(a, b):
            return a + b

        @handles("join")
        def join(a, b):
            return f"{a}-{b}"

        def dispatch(kind, *args):
            return HANDLERS[kind](*args)
        """,
        use='pool.submit(dispatch, "add", 1, 2).result(), pool.submit(dispatch, "join", 1, 2).result()',
        expected="(3, '1-2')",
    ),
    Kind(
        title="functools.lru_cache",
        script="""
        import functools

        @functools.lru_cache(maxsize=None)
        def fibonacci(n):
            return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

        def info():
            return fibonacci.cache_info().currsize
        """,
        use="pool.submit(fibonacci, 80).result(), pool.submit(info).result()",
        workers=1,
        expected="(23416728348467685, 81)",
    ),
    Kind(
        title="functools.partial of a function",
        script="""
        from functools import partial

        def power(base, exponent):
            return base ** exponent

        cube = partial(power, exponent=3)
        """,
        use="list(pool.map(cube, [1, 2, 3])), pool.submit(partial(power, 2), 5).result()",
        expected="([1, 8, 27], 32)",
    ),
    Kind(
        title="functools.singledispatch",
        script="""
        from functools import singledispatch

        class Circle:
            def __init__(self, radius):
                self.radius = radius

        @singledispatch
        def describe(value):
            return f"a {type(value).__name__}"

        @describe.register
        def _(value: int):
            return f"number {value}"

        @describe.register(Circle)
        def _(value):
            return f"circle of {value.radius}"

        def work(value):
            return describe(value)
        """,
        use='list(pool.map(work, [1, "x", Circle(2)])), pool.submit(describe, Circle(3)).result()',
        expected="(['number 1', 'a str', 'circle of 2'], 'circle of 3')",
    ),
    Kind(
        title="contextlib.contextmanager",
        script="""
        from contextlib import contextmanager

        events = []

        @contextmanager
        def step(name):
            events.append(f"begin {name}")
            yield name.upper()
            events.append(f"end {name}")

        def work():
            with step("a") as name:
                events.append(name)
            return events
        """,
        use="pool.submit(work).result()",
        expected="['begin a', 'A', 'end a']",
    ),
    Kind(
        title="a decorator that keeps a cache in its closure",
        script="""
        import functools

        def memoize(function):
            cache = {}

            @functools.wraps(function)
            def wrapper(*args):
                known = args in cache
                if not known:
                    cache[args] = function(*args)
                return cache[args], known
            return wrapper

        @memoize
        def square(number):
            return number ** 2
        """,
        use="[pool.submit(square, number).result() for number in (2, 3, 2)]",
        workers=1,
        expected="[(4, False), (9, False), (4, True)]",
    ),
    Kind(
        title="functools.lru_cache on methods, and partialmethod",
        script="""
        from functools import lru_cache, partialmethod

        class Prices:
            def __init__(self, rate):
                self.rate = rate

            @lru_cache
            def of(self, amount, factor=1):
                return self.rate * amount * factor

            double = partialmethod(of, factor=2)

            @staticmethod
            @lru_cache(maxsize=None)
            def known(name):
                return name.upper()

        def work(prices):
            return prices.of(2), prices.double(2), Prices.known("a")
        """,
        use="pool.submit(work, Prices(3)).result(), pool.submit(Prices.known, 'b').result()",
        expected="((6, 12, 'A'), 'B')",
    ),
    Kind(
        title="an async context manager and an async generator, used in the task",
        script="""
        import asyncio
        from contextlib import asynccontextmanager

        @asynccontextmanager
        async def connected(name):
            yield f"connection to {name}"

        async def pages(n):
            for page in range(n):
                await asyncio.sleep(0)
                yield page

        async def main(name):
            async with connected(name) as connection:
                return connection, [page async for page in pages(2)]

        def work(name):
            return asyncio.run(main(name))
        """,
        use='pool.submit(work, "db").result()',
        expected="('connection to db', [0, 1])",
    ),
]
