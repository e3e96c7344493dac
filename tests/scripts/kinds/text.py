"""Things of a script that tasks look up by a name in a text."""

from __future__ import annotations

from tests.scripts.kind import Kind

_JOBS = """
import importlib

def resolve(reference):
    module, _, name = reference.partition(":")
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found

def run(reference, *args):
    return resolve(reference)(*args)
"""

KINDS = [
    Kind(
        title='a job named "__main__:work", resolved by a module',
        script="""
        import jobs

        RATE = 3

        def work(number):
            return RATE * number
        """,
        files={"jobs.py": _JOBS},
        use='pool.submit(jobs.run, "__main__:work", 4).result()',
        expected="12",
    ),
    Kind(
        title='a job named "__main__:Class.method", resolved by the script',
        script=f"""{_JOBS}
class Reports:
    @staticmethod
    def weekly(week):
        return f"week {{week}}"
""",
        use='pool.submit(run, "__main__:Reports.weekly", 4).result()',
        expected="week 4",
    ),
    Kind(
        title="a job that is an object with a name in its state",
        script="""
        import jobs

        def work(number):
            return number + 1
        """,
        files={
            "jobs.py": f"""{_JOBS}
class Job:
    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __getstate__(self):
        return {{"reference": f"{{self.function.__module__}}:{{self.function.__qualname__}}", "args": self.args}}

    def __setstate__(self, state):
        self.function, self.args = resolve(state["reference"]), state["args"]

def run_job(job):
    return job.function(*job.args)
"""
        },
        use="pool.submit(jobs.run_job, jobs.Job(work, 1)).result()",
        expected="2",
    ),
    Kind(
        title="pkgutil.resolve_name",
        script="""
        import pkgutil

        class Tool:
            size = 5

        def work(name):
            return pkgutil.resolve_name(name)
        """,
        use='pool.submit(work, "__main__:Tool.size").result(), pool.submit(work, "__main__:Tool").result() is Tool',
        expected="(5, True)",
    ),
    Kind(
        title='sys.modules["__main__"], in the task',
        script="""
        import sys

        LEVEL = 3

        def helper():
            return "helped"

        def work():
            main = sys.modules["__main__"]
            return main.LEVEL, main.helper(), hasattr(main, "absent")
        """,
        use="pool.submit(work).result()",
        expected="(3, 'helped', False)",
    ),
    Kind(
        title="import __main__, in a module and in the task",
        script="""
        import tools

        VERSION = "1.2"

        def work():
            import __main__
            return __main__.VERSION, tools.version()
        """,
        files={"tools.py": "def version():\n    import __main__\n    return __main__.VERSION\n"},
        use="pool.submit(work).result(), pool.submit(tools.version).result()",
        expected="(('1.2', '1.2'), '1.2')",
    ),
    Kind(
        title="pickle.loads in the task of what the host has pickled",
        script="""
        import pickle

        class Item:
            def __init__(self, n):
                self.n = n

        def work(data):
            item = pickle.loads(data)
            return item.n, type(item) is Item
        """,
        use="pool.submit(work, pickle.dumps(Item(5))).result()",
        expected="(5, True)",
    ),
    Kind(
        title="pickle.dumps in the task, pickle.loads in the host",
        script="""
        import pickle

        class Item:
            def __init__(self, n):
                self.n = n

        def work(n):
            return pickle.dumps(Item(n))
        """,
        use="(lambda item: (type(item) is Item, item.n))(pickle.loads(pool.submit(work, 5).result()))",
        expected="(True, 5)",
    ),
    Kind(
        title="a pickle of the script's class in a file, that a module reads in the task",
        script="""
        import pickle
        from pathlib import Path

        import store

        class Model:
            def __init__(self, weight):
                self.weight = weight

            def predict(self, x):
                return self.weight * x

        MODEL = Path("model.pickle")

        def train():
            MODEL.write_bytes(pickle.dumps(Model(3)))
        """,
        files={
            "store.py": (
                "import pickle\n\ndef predict(path, x):\n    return pickle.loads(path.read_bytes()).predict(x)\n"
            )
        },
        use="(train(), pool.submit(store.predict, MODEL, 2).result())",
        expected="(None, 6)",
    ),
    Kind(
        title="pickle and copy of the script's objects, within the task",
        script="""
        import copy
        import pickle

        class Item:
            def __init__(self, *parts):
                self.parts = list(parts)

        def work(item):
            other = copy.deepcopy(item)
            third = pickle.loads(pickle.dumps(other))
            return type(other) is Item, type(third) is Item, third.parts
        """,
        use="pool.submit(work, Item(1, 2)).result()",
        expected="(True, True, [1, 2])",
    ),
    Kind(
        title="inspect.getsource, in the task",
        script="""
        import inspect

        def square(number):
            return number * number  # fast

        class Shape:
            sides = 4  # all of them

        def work():
            return "# fast" in inspect.getsource(square), inspect.getsourcelines(square)[1] > 1

        def of_class():
            return "# all of them" in inspect.getsource(Shape)
        """,
        use="pool.submit(work).result(), pool.submit(of_class).result()",
        expected="((True, True), True)",
    ),
    Kind(
        title="multiprocessing.Process, started in the task",
        script="""
        import multiprocessing as mp

        def child(queue, number):
            queue.put(number + 1)

        def work(number):
            context = mp.get_context("{method}")
            queue = context.SimpleQueue()
            process = context.Process(target=child, args=(queue, number))
            process.start()
            result = queue.get()
            process.join()
            return result, process.exitcode
        """,
        use="pool.submit(work, 1).result()",
        expected="(2, 0)",
    ),
    Kind(
        title="a pool within a task",
        script="""
        from concurrent.futures import ProcessPoolExecutor

        class Part:
            def __init__(self, n):
                self.n = n

        def square(part):
            return part.n ** 2

        def work(numbers):
            with ProcessPoolExecutor(2) as pool:
                return sum(pool.map(square, map(Part, numbers)))

        if __name__ == "__main__":
            with ProcessPoolExecutor(1) as pool:
                print(pool.submit(work, [1, 2, 3]).result())
        """,
        expected="14",
    ),
    Kind(
        title="multiprocessing.Pool within a task",
        script="""
        import multiprocessing as mp

        def square(n):
            return n ** 2

        def work(numbers):
            with mp.get_context("{method}").Pool(2) as pool:
                return pool.map(square, numbers)
        """,
        use="pool.submit(work, [1, 2, 3]).result()",
        expected="[1, 4, 9]",
    ),
    Kind(
        title="subprocess with sys.executable and the script's own file, in the task",
        script="""
        import subprocess
        import sys

        if sys.argv[1:] == ["child"]:
            print("child ran")
            sys.exit()

        def work():
            return subprocess.run([sys.executable, __file__, "child"], capture_output=True, text=True).stdout.strip()
        """,
        use="pool.submit(work).result()",
        expected="child ran",
    ),
    Kind(
        title="unittest.mock.patch of a name of __main__, in the task",
        script="""
        from unittest import mock

        def fetch():
            return "real"

        def report():
            return fetch()

        def work():
            with mock.patch(f"{__name__}.fetch", return_value="mocked"):
                return report()
        """,
        use="pool.submit(work).result()",
        expected="mocked",
    ),
    Kind(
        title="doctest and the script's docstrings, in the task",
        script="""
        import doctest

        def double(n):
            '''Double it.

            >>> double(2)
            4
            '''
            return 2 * n

        def work():
            finder = doctest.DocTestFinder(recurse=False)
            runner = doctest.DocTestRunner()
            for test in finder.find(double, "double", module=False, globs={"double": double}):
                runner.run(test)
            return tuple(runner.summarize())[:2]
        """,
        use="pool.submit(work).result()",
        expected="(0, 1)",
    ),
    Kind(
        title="a module that imports the script under its own name",
        script="""
        import tools

        REGISTERED = []

        class Item:
            kind = "item"

        def work():
            return tools.kind_of_script(), len(REGISTERED)
        """,
        files={"tools.py": "def kind_of_script():\n    import script\n    return script.Item.kind\n"},
        use="pool.submit(work).result()",
        expected="('item', 0)",
    ),
]
