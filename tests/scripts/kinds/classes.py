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
]
