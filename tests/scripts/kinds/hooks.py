"""Classes that run code of the script when they, or classes below them, are made."""

from __future__ import annotations

from tests.scripts.kind import Kind

KINDS = [
    Kind(
        title="a metaclass that fills a registry",
        script="""
        class Registry(type):
            known = {}

            def __init__(cls, name, bases, namespace):
                super().__init__(name, bases, namespace)
                Registry.known[name] = cls

        class Plugin(metaclass=Registry):
            def run(self):
                return type(self).__name__.lower()

        class Load(Plugin):
            pass

        class Save(Plugin):
            pass

        def work(name):
            return Registry.known[name]().run(), sorted(Registry.known)
        """,
        use='pool.submit(work, "Save").result()',
        expected="('save', ['Load', 'Plugin', 'Save'])",
    ),
    Kind(
        title="a metaclass that fills a registry in a global",
        script="""
        REGISTRY = {}

        class Meta(type):
            def __new__(mcs, name, bases, namespace):
                cls = super().__new__(mcs, name, bases, namespace)
                REGISTRY[name.lower()] = cls
                return cls

        class Base(metaclass=Meta):
            pass

        class Circle(Base):
            area = 3

        def work(shape):
            return REGISTRY["circle"].area, type(shape) is REGISTRY["circle"]
        """,
        use="pool.submit(work, Circle()).result()",
        expected="(3, True)",
    ),
    Kind(
        title="a metaclass that refuses doubles",
        script="""
        names = set()

        class Unique(type):
            def __new__(mcs, name, bases, namespace):
                if name in names:
                    raise TypeError(f"{name} exists")
                names.add(name)
                return super().__new__(mcs, name, bases, namespace)

        class Table(metaclass=Unique):
            rows = 5

        def work(table):
            return table.rows, sorted(names)
        """,
        use="[pool.submit(work, Table()).result() for _ in range(2)]",
        expected="[(5, ['Table']), (5, ['Table'])]",
    ),
    Kind(
        title="a metaclass that takes keywords",
        script="""
        class Versioned(type):
            def __new__(mcs, name, bases, namespace, *, version):
                return super().__new__(mcs, name, bases, {**namespace, "version": version})

            def __init__(cls, name, bases, namespace, *, version):
                super().__init__(name, bases, namespace)

        class Message(metaclass=Versioned, version=3):
            def __init__(self, text):
                self.text = text

        def work(message):
            return message.version, Message(message.text.upper())
        """,
        use='(lambda v, m: (v, m.text, type(m) is Message))(*pool.submit(work, Message("hi")).result())',
        expected="(3, 'HI', True)",
    ),
    Kind(
        title="a metaclass with __call__ (singletons), __prepare__ and a property",
        script="""
        class Single(type):
            made = {}

            @classmethod
            def __prepare__(mcs, name, bases):
                return {"origin": name.lower()}

            def __call__(cls, *args):
                if cls not in Single.made:
                    Single.made[cls] = super().__call__(*args)
                return Single.made[cls]

            @property
            def ready(cls):
                return cls in Single.made

        class Settings(metaclass=Single):
            def __init__(self):
                self.values = []

        def work(value):
            Settings().values.append(value)
            return Settings().values, Settings.ready, Settings.origin
        """,
        use="[pool.submit(work, n).result() for n in (1, 2)]",
        workers=1,
        expected="[([1], True, 'settings'), ([1, 2], True, 'settings')]",
    ),
    Kind(
        title="__init_subclass__ that fills a registry",
        script="""
        class Handler:
            handlers = {}

            def __init_subclass__(cls, **keywords):
                super().__init_subclass__(**keywords)
                Handler.handlers[cls.__name__] = cls

        class Json(Handler):
            def load(self, text):
                return ["json", text]

        class Text(Handler):
            def load(self, text):
                return ["text", text]

        def work(name, text):
            return Handler.handlers[name]().load(text), len(Handler.handlers)
        """,
        use='pool.submit(work, "Text", "x").result()',
        expected="(['text', 'x'], 2)",
    ),
    Kind(
        title="__init_subclass__ that refuses doubles",
        script="""
        class Command:
            _names = []

            def __init_subclass__(cls):
                if cls.name in Command._names:
                    raise ValueError(f"two commands are named {cls.name}")
                Command._names.append(cls.name)

        class Start(Command):
            name = "start"

        class Stop(Command):
            name = "stop"

        def work(command):
            return command.name, Command._names
        """,
        use="list(pool.map(work, [Start(), Stop()]))",
        expected="[('start', ['start', 'stop']), ('stop', ['start', 'stop'])]",
    ),
    Kind(
        title="__init_subclass__ that takes keywords",
        script="""
        class Model:
            def __init_subclass__(cls, /, table, **keywords):
                super().__init_subclass__(**keywords)
                cls.table = table

        class User(Model, table="users"):
            def __init__(self, name):
                self.name = name

        def work(user):
            return f"insert into {user.table} values ({user.name!r})", User("b")
        """,
        use='(lambda sql, user: (sql, type(user) is User))(*pool.submit(work, User("a")).result())',
        expected="""("insert into users values ('a')", True)""",
    ),
    Kind(
        title="descriptors with __set_name__",
        script="""
        class Positive:
            def __set_name__(self, owner, name):
                self.name = "_" + name
                owner.fields = [*getattr(owner, "fields", []), name]

            def __get__(self, instance, owner):
                return self if instance is None else getattr(instance, self.name)

            def __set__(self, instance, value):
                if value <= 0:
                    raise ValueError(f"{self.name[1:]} must be positive")
                setattr(instance, self.name, value)

        class Item:
            price = Positive()
            weight = Positive()

            def __init__(self, price, weight):
                self.price, self.weight = price, weight

        def work(item):
            try:
                item.price = -1
            except ValueError as error:
                return str(error), Item.fields, item
        """,
        use="(lambda text, fields, item: (text, fields, item.price))(*pool.submit(work, Item(3, 4)).result())",
        expected="('price must be positive', ['price', 'weight'], 3)",
    ),
    Kind(
        title="a class decorator that registers and changes the class",
        script="""
        CLASSES = {}

        def plugin(name):
            def decorate(cls):
                CLASSES[name] = cls
                cls.plugin_name = name
                return cls
            return decorate

        @plugin("fast")
        class Fast:
            def run(self):
                return "quick"

        def work(name):
            return CLASSES[name]().run(), CLASSES[name].plugin_name
        """,
        use='pool.submit(work, "fast").result()',
        expected="('quick', 'fast')",
    ),
    Kind(
        title="__class_getitem__ and __instancecheck__",
        script="""
        class Kinds(type):
            def __instancecheck__(cls, thing):
                return getattr(thing, "kind", None) == cls.__name__

        class Duck(metaclass=Kinds):
            def __class_getitem__(cls, size):
                return f"{cls.__name__}[{size}]"

        class Robot:
            kind = "Duck"

        def work(thing):
            return isinstance(thing, Duck), Duck[3]
        """,
        use="pool.submit(work, Robot()).result()",
        expected="(True, 'Duck[3]')",
    ),
    Kind(
        title="subclasses found by __subclasses__()",
        script="""
        class Strategy:
            @classmethod
            def named(cls, name):
                return next(one for one in cls.__subclasses__() if one.__name__ == name)()

        class Greedy(Strategy):
            def run(self, items):
                return max(items)

        class Lazy(Strategy):
            def run(self, items):
                return items[0]

        def work(name, items):
            return Strategy.named(name).run(items), len(Strategy.__subclasses__())
        """,
        use='pool.submit(work, "Greedy", [1, 3, 2]).result()',
        expected="(3, 2)",
    ),
]
