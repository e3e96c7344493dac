"""Classes with special methods, which say how they are pickled, compared or used."""

from __future__ import annotations

from tests.scripts.kind import Kind

KINDS = [
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
        use="""(lambda *r: (r, type(r[3]) is Config))(
            *pool.submit(work, Config(depth=3), Stack([4]), Path("a.py")).result())""",
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
    Kind(
        title="__match_args__ and match statements",
        script="""
        class Circle:
            __match_args__ = ("radius",)

            def __init__(self, radius):
                self.radius = radius

        class Square:
            def __init__(self, side):
                self.side = side

        def area(shape):
            match shape:
                case Circle(radius):
                    return 3 * radius ** 2
                case Square(side=side) if side > 0:
                    return side ** 2
                case [first, *_]:
                    return area(first)
        """,
        use="list(pool.map(area, [Circle(2), Square(3), [Circle(1)]]))",
        expected="[12, 9, 3]",
    ),
    Kind(
        title="names with double underscores and beyond ASCII",
        script="""
        class Tr\u00e4ger:
            __last = 10

            def __init__(self, h\u00f6he):
                self.__h\u00f6he = h\u00f6he

            def __summe(self):
                return self.__h\u00f6he + self.__last

            def messen(self):
                return self.__summe()

        def __berechne(tr\u00e4ger):
            return tr\u00e4ger.messen()

        _arbeit = __berechne
        """,
        use="pool.submit(_arbeit, Tr\u00e4ger(5)).result()",
        expected="15",
    ),
]
