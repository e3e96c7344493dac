"""The ways in which a script is started."""

from __future__ import annotations

from tests.scripts.kind import Kind

_SCRIPT = """
class Item:
    def __init__(self, n):
        self.n = n

    def more(self):
        return Item(self.n + 1)

def work(item):
    return item.more()
"""
_USE = "(lambda item: (type(item) is Item, item.n))(pool.submit(work, Item(1)).result())"
_USE_OF_PARTS = "pool.submit(double, 2).result(), pool.submit(work, Item(1)).result().n"
_EXPECTED = "(True, 2)"
_WITHOUT_GUARD = f"""{_SCRIPT}
with ProcessPoolExecutor(2) as pool:
    print({_USE})
"""
_LINES = """
from concurrent.futures import ProcessPoolExecutor
class Item:
    def __init__(self, n):
        self.n = n

def work(item):
    return Item(item.n + 1)

pool = ProcessPoolExecutor(2)
pool.submit(work, Item(1)).result().n
{more}
pool.shutdown()
"""
_ANEW = """
def work(item):
    return Item(item.n + 5)

pool.submit(work, Item(1)).result().n
"""
_CELLS = """
from concurrent.futures import ProcessPoolExecutor
pool = ProcessPoolExecutor(1)

#%%
import math
scale = 2

def work(number):
    return scale * math.floor(number)

print(pool.submit(work, 1.5).result())

#%%
class Item:
    def __init__(self, n):
        self.n = n

def more(item):
    return Item(item.n + scale)

print(pool.submit(more, Item(1)).result().n)

#%%
def work(number):
    return -number

scale = 10
print(pool.submit(work, 1).result(), pool.submit(more, Item(1)).result().n)

#%%
pool.shutdown()
"""


def _started(way: str, **more: object) -> Kind:
    """Return a kind whose script is started in some way."""
    return Kind(title=way, script=_SCRIPT, use=_USE, expected=_EXPECTED, way=way, **more)


KINDS = [
    _started("python /path/to/script.py"),
    _started("python app/script.py"),
    _started('python "my script.py"'),
    _started("python 2-run.jobs.py"),
    _started("python run-jobs"),
    _started("python link-to-script"),
    _started("python -m script"),
    _started("python -m package.script"),
    Kind(
        title="python -m package, with relative imports",
        script=f"from .parts import double\n{_SCRIPT}",
        use=_USE_OF_PARTS,
        expected="(4, 2)",
        way="python -m package",
    ),
    Kind(
        title="python -m package.script, with relative imports",
        script=f"from . import parts\nfrom .parts import double\n{_SCRIPT}",
        use=_USE_OF_PARTS,
        expected="(4, 2)",
        way="python -m package.script",
    ),
    _started("python folder"),
    _started("python app.pyz"),
    _started("runpy.run_path"),
    Kind(
        title="python app/script.py, after os.chdir",
        script=f"""
import os
from concurrent.futures import ProcessPoolExecutor
{_SCRIPT}
if __name__ == "__main__":
    os.makedirs("elsewhere", exist_ok=True)
    os.chdir("elsewhere")
    with ProcessPoolExecutor(2) as pool:
        print({_USE}, pool.submit(os.path.basename, os.getcwd()).result())
""",
        way="python app/script.py",
        expected="(True, 2) elsewhere",
    ),
    Kind(
        title="python -O, -W error, -X utf8 and -B",
        script=f"""
import sys
{_SCRIPT}
def flags():
    assert False
    return sys.flags.optimize, sys.warnoptions
""",
        use=f"{_USE}, pool.submit(flags).result()",
        flags=("-O", "-W", "error::UserWarning", "-X", "utf8", "-B"),
        expected="((True, 2), (1, ['error::UserWarning']))",
    ),
    Kind(
        title="python -P",
        script=_SCRIPT,
        use=_USE,
        flags=("-P",),
        expected=_EXPECTED,
    ),
    Kind(
        title="python -X dev",
        script=_SCRIPT,
        use=_USE,
        flags=("-X", "dev"),
        expected=_EXPECTED,
    ),
    Kind(title="a script without a guard", script=_WITHOUT_GUARD, expected=_EXPECTED),
    Kind(
        title="a script whose main() is called behind the guard, with the pool as a global",
        script=f"""
from concurrent.futures import ProcessPoolExecutor
{_SCRIPT}
pool = ProcessPoolExecutor(2)

def main():
    print({_USE})
    pool.shutdown()

if __name__ == "__main__":
    main()
""",
        expected=_EXPECTED,
    ),
    Kind(
        title="a module beside the script that keeps a pool",
        script=f"import service\n{_SCRIPT}\nif __name__ == '__main__':\n    print(service.run(work, Item(1)).n)\n",
        files={
            "service.py": (
                "from concurrent.futures import ProcessPoolExecutor\n\npool = ProcessPoolExecutor(2)\n\n"
                "def run(function, *args):\n    return pool.submit(function, *args).result()\n"
            )
        },
        expected="2",
    ),
    Kind(
        title="a guard with something else: sys.exit(main())",
        script=f"""
import sys
from concurrent.futures import ProcessPoolExecutor
{_SCRIPT}
def main() -> int:
    with ProcessPoolExecutor(2) as pool:
        print({_USE})
    return 0

if __name__ == "__main__" and len(sys.argv) < 5:
    sys.exit(main())
""",
        expected=_EXPECTED,
    ),
    Kind(
        title="python -c",
        script=_WITHOUT_GUARD,
        way="python -c",
        expected=_EXPECTED,
    ),
    Kind(
        title="python - < script.py",
        script=_WITHOUT_GUARD,
        way="python - < script.py",
        expected=_EXPECTED,
    ),
    Kind(
        title="python - < script.py, with a guard",
        script=_SCRIPT,
        use=_USE,
        way="python - < script.py",
        expected=_EXPECTED,
    ),
    Kind(
        title="at the prompt",
        script=_LINES.replace("{more}", ""),
        expected="2",
        way="python -i",
        says=r"(>>> |\.\.\. )*",
    ),
    Kind(
        title="at the prompt, and a function is defined anew",
        script=_LINES.replace("{more}", _ANEW),
        expected="2\n6",
        way="python -i",
        says=r"(>>> |\.\.\. )*",
    ),
    Kind(title="in the cells of a notebook", script=_CELLS, way="cells", expected="2\n3\n-1 11"),
    Kind(
        title="python -m package.script, with a relative import in the task",
        script="""
        def work(number):
            from .parts import double
            return double(number), __package__
        """,
        use="pool.submit(work, 2).result()",
        expected="(4, 'package')",
        way="python -m package.script",
    ),
    Kind(
        title="python -W error",
        script=_SCRIPT,
        use=_USE,
        flags=("-W", "error"),
        expected=_EXPECTED,
    ),
    Kind(
        title="python -s, with PYTHONSAFEPATH and PYTHONHASHSEED",
        script=_SCRIPT,
        use=_USE,
        flags=("-s",),
        env={"PYTHONSAFEPATH": "1", "PYTHONHASHSEED": "0"},
        expected=_EXPECTED,
    ),
]
