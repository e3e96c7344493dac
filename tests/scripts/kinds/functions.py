"""Functions that a script defines."""

from __future__ import annotations

from tests.scripts.kind import Kind

KINDS = [
    Kind(
        title="a function",
        script="""
        def square(number):
            return number * number
        """,
        use="pool.submit(square, 7).result()",
        expected="49",
    ),
    Kind(
        title="a lambda",
        use="pool.submit(lambda number: number + 1, 2).result()",
        expected="3",
    ),
    Kind(
        title="a lambda that has a name",
        script="double = lambda number: 2 * number",
        use="list(pool.map(double, [1, 2]))",
        expected="[2, 4]",
    ),
    Kind(
        title="a closure",
        script="""
        def adder(step):
            def add(number):
                return number + step
            return add
        """,
        use="list(pool.map(adder(5), [1, 2]))",
        expected="[6, 7]",
    ),
    Kind(
        title="a function that is nested in another and uses none of its variables",
        script="""
        def helper():
            def triple(number):
                return 3 * number
            return triple
        """,
        use="pool.submit(helper(), 4).result()",
        expected="12",
    ),
    Kind(
        title="a function that makes a closure and uses it",
        script="""
        def total(numbers):
            seen = 0

            def add(number):
                nonlocal seen
                seen += number

            for number in numbers:
                add(number)
            return seen
        """,
        use="pool.submit(total, [1, 2, 3]).result()",
        expected="6",
    ),
    Kind(
        title="defaults and keyword-only defaults",
        script="""
        LIMIT = 10

        def clip(number, low=0, /, high=LIMIT, *rest, scale=2, **more):
            return min(max(number, low), high) * scale, rest, sorted(more)
        """,
        use="pool.submit(clip, 50).result(), pool.submit(clip, 50, 1, 20, 7, scale=1, x=1).result()",
        expected="((20, (), []), (20, (7,), ['x']))",
    ),
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
        title="a generator function, used in the task",
        script="""
        def countdown(n):
            while n:
                yield n
                n -= 1

        def work(n):
            return list(countdown(n))
        """,
        use="pool.submit(work, 3).result()",
        expected="[3, 2, 1]",
    ),
    Kind(
        title="async functions, run by asyncio.run in the task",
        script="""
        import asyncio

        async def fetch(number):
            await asyncio.sleep(0.001)
            return number * 2

        async def gather(numbers):
            return await asyncio.gather(*map(fetch, numbers))

        def work(numbers):
            return asyncio.run(gather(numbers))
        """,
        use="pool.submit(work, [1, 2, 3]).result()",
        expected="[2, 4, 6]",
    ),
    Kind(
        title="asyncio.run is given a coroutine function's name by the host",
        script="""
        import asyncio

        async def fetch(number):
            async with asyncio.timeout(5):
                return await asyncio.to_thread(pow, number, 2)

        def run(function, *args):
            return asyncio.run(function(*args))
        """,
        use="pool.submit(run, fetch, 5).result()",
        expected="25",
    ),
    Kind(
        title="recursion",
        script="""
        def depth(tree):
            return 1 + max(map(depth, tree), default=0)
        """,
        use="pool.submit(depth, [[], [[], [[]]]]).result()",
        expected="4",
    ),
    Kind(
        title="mutual recursion",
        script="""
        def is_even(n):
            return n == 0 or is_odd(n - 1)

        def is_odd(n):
            return n != 0 and is_even(n - 1)
        """,
        use="list(pool.map(is_even, [10, 7]))",
        expected="[True, False]",
    ),
    Kind(
        title="a function with attributes of its own",
        script="""
        def work():
            work.calls += 1
            return work.calls, work.unit

        work.calls = 0
        work.unit = "ms"
        """,
        use="[pool.submit(work).result() for _ in range(2)]",
        workers=1,
        expected="[(1, 'ms'), (2, 'ms')]",
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
        title="operator.attrgetter and methodcaller as globals",
        script="""
        from dataclasses import dataclass
        from operator import attrgetter, methodcaller

        @dataclass
        class Item:
            name: str
            price: int

        by_price = attrgetter("price")
        lower = methodcaller("lower")

        def names(items):
            return [lower(item.name) for item in sorted(items, key=by_price)]
        """,
        use='pool.submit(names, [Item("B", 2), Item("A", 1)]).result()',
        expected="['a', 'b']",
    ),
    Kind(
        title="functions that are looked up in globals()",
        script="""
        def step_load(value):
            return value + ["load"]

        def step_save(value):
            return value + ["save"]

        def run(*steps):
            value = []
            for step in steps:
                value = globals()[f"step_{step}"](value)
            return value
        """,
        use='pool.submit(run, "load", "save").result()',
        expected="['load', 'save']",
    ),
    Kind(
        title="functions that eval and exec name",
        script="""
        FACTOR = 3

        def scaled(number):
            return FACTOR * number

        def work(text):
            exec("def more(n): return scaled(n) + 1", globals())
            return eval(text)
        """,
        use='pool.submit(work, "scaled(2) + more(1)").result()',
        expected="10",
    ),
    Kind(
        title="__file__ and the script's folder, in the task",
        script="""
        from pathlib import Path

        HERE = Path(__file__).resolve().parent

        def work():
            return Path(__file__).name, (HERE / "data.txt").read_text()
        """,
        files={"data.txt": "42"},
        use="pool.submit(work).result()",
        expected="('script.py', '42')",
    ),
]
