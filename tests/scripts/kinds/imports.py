"""Imports of every form, that tasks use."""

from __future__ import annotations

from tests.scripts.kind import Kind

_PACKAGE = {
    "shop/__init__.py": "",
    "shop/prices.py": "RATE = 2\n\ndef total(items):\n    return RATE * sum(items)\n",
    "shop/models.py": "class Item:\n    def __init__(self, n):\n        self.n = n\n",
}
_LAZILY = ("-X", "lazy_imports=all")

KINDS = [
    Kind(
        title="import x, import x.y, import x.y as z",
        script="""
        import json
        import os.path
        import urllib.parse
        import xml.etree.ElementTree as ElementTree

        def work(url):
            root = ElementTree.fromstring("<a><b/></a>")
            return urllib.parse.urlsplit(url).netloc, os.path.basename(url), json.dumps([len(root)])
        """,
        use='pool.submit(work, "http://host/a/b").result()',
        expected="('host', 'b', '[1]')",
    ),
    Kind(
        title="from x import y, from x import y as z, from x import *",
        script="""
        from collections import Counter
        from itertools import chain as joined
        from string import *

        def work(*texts):
            return Counter(joined(*texts)).most_common(1), digits, capwords("a b")
        """,
        use='pool.submit(work, "ab", "b").result()',
        expected="([('b', 2)], '0123456789', 'A B')",
    ),
    Kind(
        title="an import inside the function",
        script="""
        def work(text):
            import hashlib
            from base64 import b64encode
            return b64encode(hashlib.md5(text).digest()[:3])
        """,
        use='pool.submit(work, b"x").result()',
        expected="b'ndTk'",
    ),
    Kind(
        title="modules and packages beside the script",
        script="""
        import shop.prices
        from shop import models
        from shop.prices import total

        def work(*numbers):
            return total(numbers), shop.prices.RATE, models.Item(3)
        """,
        files=_PACKAGE,
        use="(lambda a, b, item: (a, b, type(item) is models.Item))(*pool.submit(work, 1, 2).result())",
        expected="(6, 2, True)",
    ),
    Kind(
        title="a function and a class of a module beside the script, without one of the script itself",
        script="import shop.models, shop.prices",
        files=_PACKAGE,
        use="pool.submit(shop.prices.total, [1, 2]).result(), pool.submit(shop.models.Item, 5).result().n",
        expected="(6, 5)",
    ),
    Kind(
        title="an import that may fail, and a fallback",
        script="""
        try:
            import a_module_that_is_not_there as fast
        except ImportError:
            fast = None

        try:
            import tomllib
        except ImportError:
            tomllib = None

        def work(text):
            return fast is None, tomllib.loads(text)
        """,
        use='pool.submit(work, "a = 1").result()',
        expected="(True, {'a': 1})",
    ),
    Kind(
        title="imports under TYPE_CHECKING that only annotations name",
        script="""
        from __future__ import annotations

        from typing import TYPE_CHECKING

        if TYPE_CHECKING:
            from a_module_that_is_not_there import Thing

        def work(thing: Thing, more: list[Thing] | None = None) -> Thing:
            return thing
        """,
        use="pool.submit(work, 3).result()",
        expected="3",
    ),
    Kind(
        title="a submodule that another import makes known",
        script="""
        import importlib
        import concurrent

        importlib.import_module("concurrent.futures.thread")

        def work(n):
            with concurrent.futures.thread.ThreadPoolExecutor(1) as threads:
                return threads.submit(abs, n).result()
        """,
        use="pool.submit(work, -3).result()",
        expected="3",
    ),
    Kind(
        title="importlib.util.LazyLoader",
        script="""
        import importlib.util
        import sys

        def lazy(name):
            spec = importlib.util.find_spec(name)
            loader = importlib.util.LazyLoader(spec.loader)
            spec.loader = loader
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            loader.exec_module(module)
            return module

        colorsys = lazy("colorsys")

        def work():
            return colorsys.rgb_to_hsv(1, 0, 0)
        """,
        use="pool.submit(work).result()",
        expected="(0.0, 1.0, 1)",
    ),
    Kind(
        title="lazy import and lazy from ... import",
        script="""
        lazy import json
        lazy import xml.dom.minidom
        lazy from decimal import Decimal
        lazy from base64 import b64encode as encode

        def work(text):
            return json.dumps([text]), Decimal(text) * 2, encode(b"a"), xml.dom.minidom.Node.TEXT_NODE
        """,
        use='pool.submit(work, "1.5").result()',
        since=(3, 15),
        expected="""('["1.5"]', Decimal('3.0'), b'YQ==', 3)""",
    ),
    Kind(
        title="lazy imports that the task does not use stay lazy",
        script="""
        import sys

        lazy import colorsys
        lazy from a_module_that_is_not_there import thing

        def work(use):
            before = "colorsys" in sys.modules
            return before, colorsys.rgb_to_hsv(0, 0, 0)[2] if use else None

        def unused():
            return thing
        """,
        use='pool.submit(work, False).result(), pool.submit(work, True).result(), "colorsys" in sys.modules',
        since=(3, 15),
        workers=1,
        expected="((False, None), (False, 0), False)",
    ),
    Kind(
        title="lazy from ... import of a class that is used in annotations",
        script="""
        lazy from decimal import Decimal

        def work(number: Decimal) -> Decimal:
            return number

        class Account:
            balance: Decimal

        def hold(account):
            return type(account) is Account
        """,
        use="pool.submit(work, 3).result(), pool.submit(hold, Account()).result()",
        since=(3, 15),
        expected="(3, True)",
    ),
    Kind(
        title="lazy from ... import of what is not there, in annotations only",
        script="""
        lazy from a_module_that_is_not_there import Thing

        def work(thing: Thing) -> list[Thing]:
            return [thing]

        class Keeper:
            thing: Thing | None = None

            def hold(self, thing: Thing) -> int:
                return thing
        """,
        use="pool.submit(work, 3).result(), pool.submit(Keeper().hold, 4).result()",
        since=(3, 15),
        expected="([3], 4)",
    ),
    Kind(
        title="-X lazy_imports=all: imports of every form",
        script="""
        import json
        import os.path
        import shop.prices
        from collections import Counter, namedtuple
        from dataclasses import dataclass
        from shop.models import Item

        @dataclass
        class Order:
            numbers: list[int]

        Pair = namedtuple("Pair", "a b")

        def work(order):
            return json.dumps(Counter(order.numbers)), shop.prices.total(order.numbers), Pair(1, Item(2).n)
        """,
        files=_PACKAGE,
        use="pool.submit(work, Order([1, 1])).result()",
        flags=_LAZILY,
        since=(3, 15),
        expected="""('{"1": 2}', 4, Pair(a=1, b=2))""",
    ),
    Kind(
        title="PYTHON_LAZY_IMPORTS=all: classes and errors",
        script="""
        import enum
        import re
        from abc import ABC, abstractmethod

        class Shape(ABC):
            @abstractmethod
            def area(self): ...

        class Square(Shape):
            def area(self):
                return 4

        class Color(enum.Enum):
            RED = 1

        def work(shape, color):
            return shape.area(), color is Color.RED, re.sub("a", "b", "banana")
        """,
        use="pool.submit(work, Square(), Color.RED).result()",
        env={"PYTHON_LAZY_IMPORTS": "all"},
        since=(3, 15),
        expected="(4, True, 'bbnbnb')",
    ),
]
