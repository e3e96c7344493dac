"""Classes that a script defines: their objects go to tasks, and come back."""

from __future__ import annotations

from tests.scripts.kind import Kind

KINDS = [
    Kind(
        title="a class; its objects are arguments and results",
        script="""
        class Point:
            def __init__(self, x, y):
                self.x, self.y = x, y

            def moved(self, by):
                return Point(self.x + by, self.y)

        def work(point):
            assert isinstance(point, Point)
            return point.moved(10)
        """,
        use="(lambda point: (type(point) is Point, point.x))(pool.submit(work, Point(1, 2)).result())",
        expected="(True, 11)",
    ),
    Kind(
        title="__slots__",
        script="""
        class Point:
            __slots__ = ("x", "y", "__weakref__")

            def __init__(self, x, y):
                self.x, self.y = x, y

        def work(point):
            return Point(point.y, point.x)
        """,
        use="(lambda point: (type(point) is Point, point.x, point.y))(pool.submit(work, Point(1, 2)).result())",
        expected="(True, 2, 1)",
    ),
    Kind(
        title="inheritance and super()",
        script="""
        class Animal:
            def __init__(self, name):
                self.name = name

            def say(self):
                return f"{self.name} says"

        class Dog(Animal):
            def __init__(self, name):
                super().__init__(name.title())

            def say(self):
                return f"{super().say()} woof"

        def work(name):
            dog = Dog(name)
            return dog.say(), isinstance(dog, Animal)
        """,
        use='pool.submit(work, "rex").result()',
        expected="('Rex says woof', True)",
    ),
    Kind(
        title="multiple inheritance and mixins",
        script="""
        import json

        class Named:
            def __init__(self, name, **more):
                super().__init__(**more)
                self.name = name

        class Sized:
            def __init__(self, size, **more):
                super().__init__(**more)
                self.size = size

        class JsonMixin:
            def to_json(self):
                return json.dumps(vars(self), sort_keys=True)

        class Box(JsonMixin, Named, Sized):
            pass

        def work(box):
            return box.to_json(), [base.__name__ for base in type(box).__mro__]
        """,
        use='pool.submit(work, Box(name="b", size=3)).result()',
        expected="""('{"name": "b", "size": 3}', ['Box', 'JsonMixin', 'Named', 'Sized', 'object'])""",
    ),
    Kind(
        title="a class attribute that tasks change",
        script="""
        class Counter:
            made = 0

            def __init__(self):
                type(self).made += 1

        def work():
            Counter()
            return Counter.made
        """,
        use="[pool.submit(work).result() for _ in range(3)]",
        workers=1,
        expected="[1, 2, 3]",
    ),
    Kind(
        title="property with a setter",
        script="""
        class Temperature:
            def __init__(self, celsius):
                self.celsius = celsius

            @property
            def fahrenheit(self):
                return self.celsius * 9 / 5 + 32

            @fahrenheit.setter
            def fahrenheit(self, value):
                self.celsius = (value - 32) * 5 / 9

        def work(temperature):
            before = temperature.fahrenheit
            temperature.fahrenheit = 50
            return before, temperature
        """,
        use="(lambda pair: (pair[0], pair[1].celsius))(pool.submit(work, Temperature(100)).result())",
        expected="(212.0, 10.0)",
    ),
    Kind(
        title="functools.cached_property",
        script="""
        from functools import cached_property

        class Text:
            def __init__(self, text):
                self.text = text

            @cached_property
            def words(self):
                return self.text.split()

        def work(text):
            return text.words, text
        """,
        use='(lambda pair: (pair[0], vars(pair[1])["words"]))(pool.submit(work, Text("a b")).result())',
        expected="(['a', 'b'], ['a', 'b'])",
    ),
    Kind(
        title="functools.singledispatchmethod",
        script="""
        from functools import singledispatchmethod

        class Formatter:
            @singledispatchmethod
            def format(self, value):
                return str(value)

            @format.register
            def _(self, value: list):
                return ",".join(map(self.format, value))

            @format.register
            def _(self, value: None):
                return "-"

        def work(value):
            return Formatter().format(value)
        """,
        use="pool.submit(work, [1, None, 2]).result()",
        expected="1,-,2",
    ),
    Kind(
        title="a class inside a class",
        script="""
        class Order:
            class Line:
                def __init__(self, price):
                    self.price = price

            def __init__(self, *prices):
                self.lines = [self.Line(price) for price in prices]

        def total(order):
            return sum(line.price for line in order.lines), order.lines[0]
        """,
        use="(lambda pair: (pair[0], type(pair[1]) is Order.Line))(pool.submit(total, Order(1, 2)).result())",
        expected="(3, True)",
    ),
    Kind(
        title="a class that a function makes",
        script="""
        def make(unit):
            class Length:
                def __init__(self, value):
                    self.value = value

                def __str__(self):
                    return f"{self.value} {unit}"
            return Length

        def work(length):
            return str(length)
        """,
        use='pool.submit(work, make("cm")(3)).result()',
        expected="3 cm",
    ),
    Kind(
        title="__getstate__ and __setstate__ that leave a lock out",
        script="""
        import threading

        class Store:
            def __init__(self):
                self.lock = threading.Lock()
                self.items = {}

            def __getstate__(self):
                return {"items": self.items}

            def __setstate__(self, state):
                self.__init__()
                self.items.update(state["items"])

            def put(self, key, value):
                with self.lock:
                    self.items[key] = value
                return self

        def work(store):
            return store.put("b", 2)
        """,
        use='pool.submit(work, Store().put("a", 1)).result().items',
        expected="{'a': 1, 'b': 2}",
    ),
    Kind(
        title="__reduce__ and __getnewargs__",
        script="""
        class Handle:
            def __init__(self, path, mode):
                self.path, self.mode = path, mode

            def __reduce__(self):
                return Handle, (self.path, self.mode)

        class Money(int):
            def __new__(cls, amount, currency):
                self = super().__new__(cls, amount)
                self.currency = currency
                return self

            def __getnewargs__(self):
                return int(self), self.currency

        def work(handle, money):
            return Handle(handle.path, "w"), Money(money * 2, money.currency)
        """,
        use="""(lambda h, m: (type(h) is Handle, h.mode, m, m.currency))(
            *pool.submit(work, Handle("a", "r"), Money(5, "EUR")).result())""",
        expected="(True, 'w', 10, 'EUR')",
    ),
    Kind(
        title="subclasses of dict, list, str, int and Exception",
        script="""
        class Config(dict):
            def __getattr__(self, name):
                return self[name]

        class Stack(list):
            def top(self):
                return self[-1]

        class Path(str):
            def suffix(self):
                return self.rpartition(".")[2]

        def work(config, stack, path):
            return config.depth, stack.top(), path.suffix(), Config(a=1), Stack([2])
        """,
        use='(lambda *r: (r, type(r[3]) is Config))(*pool.submit(work, Config(depth=3), Stack([4]), Path("a.py")).result())',
        expected="((3, 4, 'py', {'a': 1}, [2]), True)",
    ),
    Kind(
        title="__eq__, __hash__ and functools.total_ordering",
        script="""
        from functools import total_ordering

        @total_ordering
        class Version:
            def __init__(self, text):
                self.parts = tuple(map(int, text.split(".")))

            def __eq__(self, other):
                return self.parts == other.parts

            def __lt__(self, other):
                return self.parts < other.parts

            def __hash__(self):
                return hash(self.parts)

        KNOWN = {Version("1.2"), Version("1.10")}

        def newest(versions):
            return max(versions), [version in KNOWN for version in versions]
        """,
        use="""(lambda best, known: (best == Version("1.10"), known))(
            *pool.submit(newest, [Version("1.2"), Version("1.10"), Version("1.9")]).result())""",
        expected="(True, [True, True, False])",
    ),
    Kind(
        title="an abstract base class",
        script="""
        from abc import ABC, abstractmethod

        class Shape(ABC):
            @abstractmethod
            def area(self): ...

        class Square(Shape):
            def __init__(self, side):
                self.side = side

            def area(self):
                return self.side ** 2

        def work(shape):
            try:
                Shape()
            except TypeError:
                return shape.area(), isinstance(shape, Shape)
        """,
        use="pool.submit(work, Square(3)).result()",
        expected="(9, True)",
    ),
    Kind(
        title="an abstract base class with a virtual subclass",
        script="""
        from abc import ABC

        class Drawable(ABC):
            pass

        class Picture:
            pass

        Drawable.register(Picture)

        def work(thing):
            return isinstance(thing, Drawable), issubclass(Picture, Drawable)
        """,
        use="pool.submit(work, Picture()).result()",
        expected="(True, True)",
    ),
    Kind(
        title="a context manager and an iterator, as classes",
        script="""
        class Steps:
            def __init__(self, n):
                self.n = n

            def __iter__(self):
                return self

            def __next__(self):
                if not self.n:
                    raise StopIteration
                self.n -= 1
                return self.n

        class Session:
            def __enter__(self):
                self.open = True
                return self

            def __exit__(self, *exc):
                self.open = False
                return True

        def work(steps):
            with Session() as session:
                raise ValueError
            return list(steps), session.open
        """,
        use="pool.submit(work, Steps(3)).result()",
        expected="([2, 1, 0], False)",
    ),
    Kind(
        title="__getattr__ that delegates",
        script="""
        class Proxy:
            def __init__(self, target):
                self.__dict__["target"] = target

            def __getattr__(self, name):
                if name.startswith("__"):
                    raise AttributeError(name)
                return getattr(self.target, name)

        def work(proxy):
            return proxy.upper()
        """,
        use='pool.submit(work, Proxy("abc")).result()',
        expected="ABC",
    ),
    Kind(
        title="objects that know each other",
        script="""
        class Node:
            def __init__(self, name):
                self.name, self.parent, self.children = name, None, []

            def add(self, child):
                child.parent = self
                self.children.append(child)
                return self

        def work(root):
            root.add(Node("c"))
            return root
        """,
        use="""(lambda root: [(n.name, n.parent is root) for n in root.children])(
            pool.submit(work, Node("a").add(Node("b"))).result())""",
        expected="[('b', True), ('c', True)]",
    ),
]
