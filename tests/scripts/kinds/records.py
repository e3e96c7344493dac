"""Dataclasses, named tuples and enumerations of a script."""

from __future__ import annotations

from tests.scripts.kind import Kind

KINDS = [
    Kind(
        title="a dataclass",
        script="""
        from dataclasses import asdict, dataclass, field, replace

        @dataclass(order=True)
        class Job:
            name: str
            tags: list[str] = field(default_factory=list)
            cost: float = field(default=1.0, compare=False)

        def work(job):
            return replace(job, tags=[*job.tags, "done"]), asdict(job)
        """,
        use="""(lambda job, as_dict: (job == Job("a", ["new", "done"]), as_dict))(
            *pool.submit(work, Job("a", ["new"])).result())""",
        expected="(True, {'name': 'a', 'tags': ['new'], 'cost': 1.0})",
    ),
    Kind(
        title="a frozen dataclass, as a key",
        script="""
        from dataclasses import dataclass

        @dataclass(frozen=True)
        class Cell:
            x: int
            y: int

        def work(cells):
            return {cell: cell.x * cell.y for cell in cells}
        """,
        use="pool.submit(work, [Cell(2, 3)]).result()[Cell(2, 3)]",
        expected="6",
    ),
    Kind(
        title="a dataclass with slots, frozen, keyword-only",
        script="""
        from dataclasses import dataclass

        @dataclass(slots=True, frozen=True, kw_only=True)
        class Point:
            x: int
            y: int = 0

        def work(point):
            return Point(x=point.y, y=point.x)
        """,
        use="pool.submit(work, Point(x=1)).result()",
        expected="Point(x=0, y=1)",
    ),
    Kind(
        title="dataclasses that inherit, with ClassVar, InitVar and __post_init__",
        script="""
        from dataclasses import InitVar, dataclass
        from typing import ClassVar

        @dataclass
        class Base:
            name: str
            count: ClassVar[int] = 7

        @dataclass
        class Scaled(Base):
            value: float
            factor: InitVar[float] = 1.0

            def __post_init__(self, factor):
                self.value *= factor

        def work(item):
            return Scaled("n", item.value, 3.0), item.count
        """,
        use='pool.submit(work, Scaled("m", 2.0, 5.0)).result()',
        expected="(Scaled(name='n', value=30.0), 7)",
    ),
    Kind(
        title="a dataclass that names itself in quotes",
        script="""
        from dataclasses import dataclass

        @dataclass
        class Node:
            value: int
            next: "Node | None" = None

        def total(node):
            return node.value + (total(node.next) if node.next else 0)
        """,
        use="pool.submit(total, Node(1, Node(2))).result()",
        expected="3",
    ),
    Kind(
        title="a dataclass that names itself unquoted",
        script="""
        from dataclasses import dataclass, fields
        from typing import get_type_hints

        @dataclass
        class Node:
            value: int
            next: Node | None = None

        def push(node):
            return Node(node.value + 1, node), get_type_hints(Node)["next"] == Node | None, len(fields(Node))
        """,
        use="(lambda node, same, n: (node.next.value, same, n))(*pool.submit(push, Node(1)).result())",
        since=(3, 14),
        expected="(1, True, 2)",
    ),
    Kind(
        title="dataclasses.make_dataclass",
        script="""
        from dataclasses import make_dataclass

        Point = make_dataclass("Point", [("x", int), ("y", int)])
        Point.__module__ = __name__

        def work(point):
            return Point(point.y, point.x)
        """,
        use="pool.submit(work, Point(1, 2)).result()",
        expected="Point(x=2, y=1)",
    ),
    Kind(
        title="typing.NamedTuple",
        script="""
        from typing import NamedTuple

        class Row(NamedTuple):
            id: int
            name: str = "-"

            def label(self):
                return f"{self.id}:{self.name}"

        def work(row):
            return Row(row.id + 1), row.label(), row._replace(name="z")
        """,
        use='pool.submit(work, Row(1, "a")).result()',
        expected="(Row(id=2, name='-'), '1:a', Row(id=1, name='z'))",
    ),
    Kind(
        title="collections.namedtuple",
        script="""
        from collections import namedtuple

        Pair = namedtuple("Pair", "left right", defaults=(0,))

        def work(pair):
            return Pair(pair.right), Pair._fields
        """,
        use="(lambda pair, names: (type(pair) is Pair, pair, names))(*pool.submit(work, Pair(1, 2)).result())",
        expected="(True, Pair(left=2, right=0), ('left', 'right'))",
    ),
    Kind(
        title="typing.NamedTuple, called as a function",
        script="""
        from typing import NamedTuple

        Pair = NamedTuple("Pair", [("left", int), ("right", int)])

        def work(pair):
            return Pair(pair.right, pair.left)
        """,
        use="pool.submit(work, Pair(1, 2)).result()",
        expected="Pair(left=2, right=1)",
    ),
    Kind(
        title="TypedDict",
        script="""
        from typing import TypedDict

        class Movie(TypedDict, total=False):
            title: str
            year: int

        def work(movie: Movie) -> Movie:
            return Movie(title=movie["title"], year=sorted(Movie.__optional_keys__).index("year"))
        """,
        use='pool.submit(work, {"title": "M"}).result()',
        expected="{'title': 'M', 'year': 1}",
    ),
    Kind(
        title="an Enum whose members are compared by identity",
        script="""
        from enum import Enum, auto

        class Color(Enum):
            RED = auto()
            GREEN = auto()

            @property
            def pretty(self):
                return self.name.lower()

        def work(color):
            return Color.GREEN if color is Color.RED else None, color.pretty
        """,
        use="(lambda color, text: (color is Color.GREEN, text))(*pool.submit(work, Color.RED).result())",
        expected="(True, 'red')",
    ),
    Kind(
        title="an Enum with values in tuples and an __init__",
        script="""
        from enum import Enum

        class Planet(Enum):
            EARTH = (5.97e24, 6.37e6)
            MARS = (6.41e23, 3.39e6)

            def __init__(self, mass, radius):
                self.mass = mass
                self.radius = radius

            @property
            def gravity(self):
                return round(6.674e-11 * self.mass / self.radius**2, 1)

        def work(planet):
            return planet.gravity, Planet((6.41e23, 3.39e6)).gravity
        """,
        use="pool.submit(work, Planet.EARTH).result()",
        expected="(9.8, 3.7)",
    ),
    Kind(
        title="Flag, IntEnum and StrEnum",
        script="""
        from enum import Flag, IntEnum, StrEnum, auto

        class Access(Flag):
            READ = auto()
            WRITE = auto()

        class Level(IntEnum):
            LOW = 1
            HIGH = 2

        class Mode(StrEnum):
            FAST = auto()
            SAFE = auto()

        def work(access, level, mode):
            return Access.WRITE in access, Level(level + 1), mode == "fast", access | Access.READ
        """,
        use="""(lambda *r: (r[0], r[1] is Level.HIGH, r[2], r[3] is Access.READ | Access.WRITE))(
            *pool.submit(work, Access.WRITE, Level.LOW, Mode.FAST).result())""",
        expected="(True, True, True, True)",
    ),
    Kind(
        title="an Enum whose values are functions of the script",
        script="""
        from enum import Enum
        from functools import partial

        def add(a, b):
            return a + b

        def mul(a, b):
            return a * b

        class Operation(Enum):
            ADD = partial(add)
            MUL = partial(mul)

            def __call__(self, *args):
                return self.value(*args)

        OPERATIONS = {"add": add, "mul": mul}

        def work(name):
            return OPERATIONS[name](3, 4)
        """,
        use='list(pool.map(work, ["add", "mul"]))',
        expected="[7, 12]",
    ),
    Kind(
        title="an Enum called as a function, and one with _missing_",
        script="""
        from enum import Enum, IntEnum

        Color = Enum("Color", "RED GREEN", module=__name__)

        class Level(IntEnum):
            LOW = 1
            HIGH = 2

            @classmethod
            def _missing_(cls, value):
                return cls.HIGH if value > 2 else None

        def work(color, value):
            return Color["GREEN"] if color is Color.RED else None, Level(value)
        """,
        use="(lambda c, l: (c is Color.GREEN, l is Level.HIGH))(*pool.submit(work, Color.RED, 7).result())",
        expected="(True, True)",
    ),
    Kind(
        title="dataclasses.fields and asdict of a class with a lock as a field",
        script="""
        import threading
        from dataclasses import dataclass, field, fields

        @dataclass
        class Counter:
            name: str
            value: int = 0
            lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

            def add(self, by):
                with self.lock:
                    self.value += by
                    return self.value

        counter = Counter("total")

        def work(by):
            return counter.add(by), [one.name for one in fields(counter)]
        """,
        use="[pool.submit(work, n).result()[0] for n in (1, 2)], pool.submit(work, 1).result()[1]",
        workers=1,
        expected="([1, 3], ['name', 'value', 'lock'])",
    ),
]
