"""Globals of a script that last from task to task in a worker, or that the host changes."""

from __future__ import annotations

from tests.scripts.kind import Kind

KINDS = [
    Kind(
        title="constants of all kinds",
        script="""
        import math

        LIMIT = 10
        RATE = 0.5
        NAMES = ("a", "b")
        TABLE = {"a": [1, 2], "b": {3}}
        TAU = 2 * math.pi
        NOTHING = None
        MASK = b"\\x01\\x02"
        FROZEN = frozenset(NAMES)

        def work(name):
            return LIMIT * RATE, TABLE[name], name in FROZEN, round(TAU, 2), NOTHING, MASK[1]
        """,
        use='pool.submit(work, "b").result()',
        expected="(5.0, {3}, True, 6.28, None, 2)",
    ),
    Kind(
        title="a counter that a task increases",
        script="""
        calls = 0

        def work():
            global calls
            calls += 1
            return calls
        """,
        use="[pool.submit(work).result() for _ in range(3)]",
        workers=1,
        expected="[1, 2, 3]",
    ),
    Kind(
        title="a dict that tasks fill as a cache",
        script="""
        cache = {}
        computed = []

        def work(key):
            if key not in cache:
                computed.append(key)
                cache[key] = key * 2
            return cache[key], len(computed)
        """,
        use="[pool.submit(work, key).result() for key in (1, 2, 1)]",
        workers=1,
        expected="[(2, 1), (4, 2), (2, 2)]",
    ),
    Kind(
        title="a list, a set, a deque and a defaultdict that tasks change",
        script="""
        from collections import Counter, defaultdict, deque

        seen, last, groups, counts = set(), deque(maxlen=2), defaultdict(list), Counter()
        log = []

        def work(word):
            seen.add(word)
            last.append(word)
            groups[len(word)].append(word)
            counts[word] += 1
            log.append(word)
            return sorted(seen), list(last), dict(groups), counts[word], len(log)
        """,
        use='[pool.submit(work, word).result() for word in ("a", "bb", "a")][-1]',
        workers=1,
        expected="(['a', 'bb'], ['bb', 'a'], {1: ['a', 'a'], 2: ['bb']}, 2, 3)",
    ),
    Kind(
        title="a model that the first task loads",
        script="""
        class Model:
            loads = 0

            def __init__(self):
                Model.loads += 1

            def predict(self, n):
                return n + 1

        _model = None

        def get_model():
            global _model
            if _model is None:
                _model = Model()
            return _model

        def work(n):
            return get_model().predict(n), Model.loads
        """,
        use="[pool.submit(work, n).result() for n in (1, 2)]",
        workers=1,
        expected="[(2, 1), (3, 1)]",
    ),
    Kind(
        title="a global that is derived from another by code of the script",
        script="""
        WORDS = "the quick brown fox".split()
        INDEX = {word: place for place, word in enumerate(WORDS)}
        LENGTHS = [len(word) for word in WORDS]

        for _name in ("alpha", "beta"):
            globals()[_name.upper()] = _name

        def work(word):
            return INDEX[word], max(LENGTHS), ALPHA, BETA
        """,
        use='pool.submit(work, "fox").result()',
        expected="(3, 5, 'alpha', 'beta')",
    ),
    Kind(
        title="two globals that are one object",
        script="""
        settings = {"mode": "fast"}
        alias = settings

        def change():
            alias["mode"] = "safe"

        def work():
            change()
            return settings["mode"], settings is alias
        """,
        use="pool.submit(work).result()",
        expected="('safe', True)",
    ),
    Kind(
        title="a table of 20000 entries",
        script="""
        TABLE = {number: f"entry {number}" for number in range(20_000)}

        def work(number):
            return TABLE[number]
        """,
        use="list(pool.map(work, [1, 19_999]))",
        expected="['entry 1', 'entry 19999']",
    ),
    Kind(
        title="the host changes a global before the pool is made",
        script="""
        from concurrent.futures import ProcessPoolExecutor

        factor = 1

        def work(number):
            return factor * number

        if __name__ == "__main__":
            factor = 5
            with ProcessPoolExecutor(2) as pool:
                print(pool.submit(work, 2).result())
        """,
        expected="10",
    ),
    Kind(
        title="the host changes a global between two tasks",
        script="""
        from concurrent.futures import ProcessPoolExecutor

        factor = 1

        def work(number):
            return factor * number

        if __name__ == "__main__":
            with ProcessPoolExecutor(1) as pool:
                first = pool.submit(work, 2).result()
                factor = 5
                print(first, pool.submit(work, 2).result())
        """,
        expected="2 10",
        reason_with_fork="as with the standard pool: a worker has the globals of the moment of its fork",
    ),
    Kind(
        title="globals that are defined behind the guard",
        script="""
        from concurrent.futures import ProcessPoolExecutor

        def work(number):
            return config["scale"] * number

        if __name__ == "__main__":
            config = {"scale": 3}
            with ProcessPoolExecutor(2) as pool:
                print(list(pool.map(work, [1, 2])))
        """,
        expected="[3, 6]",
    ),
    Kind(
        title="a function that is defined behind the guard",
        script="""
        from concurrent.futures import ProcessPoolExecutor

        if __name__ == "__main__":
            def work(number):
                return number + 1

            with ProcessPoolExecutor(2) as pool:
                print(pool.submit(work, 1).result())
        """,
        expected="2",
    ),
    Kind(
        title="what a main() reads from argv, as arguments of tasks",
        script="""
        import argparse
        from concurrent.futures import ProcessPoolExecutor

        def work(options, number):
            return options.scale * number

        def main():
            parser = argparse.ArgumentParser()
            parser.add_argument("--scale", type=int, default=4)
            options = parser.parse_args()
            with ProcessPoolExecutor(2) as pool:
                print([pool.submit(work, options, n).result() for n in (1, 2)])

        if __name__ == "__main__":
            main()
        """,
        expected="[4, 8]",
    ),
    Kind(
        title="two pools, one after the other",
        script="""
        from concurrent.futures import ProcessPoolExecutor

        class Item:
            def __init__(self, n):
                self.n = n

        def work(item):
            return Item(item.n + 1)

        if __name__ == "__main__":
            item = Item(0)
            for _ in range(2):
                with ProcessPoolExecutor(2) as pool:
                    item = pool.submit(work, item).result()
            print(item.n, type(item) is Item)
        """,
        expected="2 True",
    ),
    Kind(
        title="a default argument that serves as a cache",
        script="""
        def work(key, cache={}):
            known = key in cache
            cache[key] = True
            return known, len(cache)
        """,
        use="[pool.submit(work, key).result() for key in (1, 2, 1)]",
        workers=1,
        expected="[(False, 1), (False, 2), (True, 2)]",
    ),
    Kind(
        title="a settings object of a class of the script",
        script="""
        from dataclasses import dataclass, field

        @dataclass
        class Settings:
            debug: bool = False
            paths: list[str] = field(default_factory=list)

        settings = Settings()
        settings.paths.append("/data")

        def configure(name, value):
            setattr(settings, name, value)

        def work():
            configure("debug", True)
            return settings
        """,
        use="pool.submit(work).result()",
        expected="Settings(debug=True, paths=['/data'])",
    ),
]
