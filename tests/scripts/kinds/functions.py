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
