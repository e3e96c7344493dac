"""What the top of a script sets in other modules and in the process, and tasks rely on."""

from __future__ import annotations

from tests.scripts.kind import Kind

KINDS = [
    Kind(
        title="logging.basicConfig at the top",
        script="""
        import logging
        import sys

        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stdout)
        log = logging.getLogger("app")

        def work(number):
            log.info("task %d", number)
            return number
        """,
        use="pool.submit(work, 1).result()",
        expected="INFO app: task 1\n1",
    ),
    Kind(
        title="a logger with a handler and a level of its own",
        script="""
        import logging
        import sys

        logger = logging.getLogger(__name__)
        logger.setLevel(logging.DEBUG)
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(filename)s %(funcName)s %(message)s"))
        logger.addHandler(handler)

        def work(number):
            logger.debug("got %d", number)
            return number
        """,
        use="pool.submit(work, 1).result()",
        expected="script.py work got 1\n1",
    ),
    Kind(
        title="logging.config.dictConfig with a filter class of the script",
        script="""
        import logging.config

        class Tag(logging.Filter):
            def filter(self, record):
                record.tag = "T"
                return True

        logging.config.dictConfig({
            "version": 1,
            "filters": {"tag": {"()": Tag}},
            "formatters": {"short": {"format": "%(tag)s %(message)s"}},
            "handlers": {"out": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout",
                                 "formatter": "short", "filters": ["tag"]}},
            "root": {"handlers": ["out"], "level": "INFO"},
        })

        def work(number):
            logging.info("task %d", number)
            return number
        """,
        use="pool.submit(work, 1).result()",
        expected="T task 1\n1",
    ),
    Kind(
        title="os.environ, set at the top",
        script="""
        import os

        os.environ["APP_MODE"] = "test"
        os.environ.setdefault("APP_LEVEL", "3")

        def work():
            return os.environ["APP_MODE"], os.getenv("APP_LEVEL")
        """,
        use="pool.submit(work).result()",
        expected="('test', '3')",
    ),
    Kind(
        title="sys.path, extended at the top",
        script="""
        import sys
        from pathlib import Path

        sys.path.insert(0, str(Path(__file__).parent / "lib"))

        import shapes

        def work(n):
            import colors
            return shapes.Square(n).area(), colors.NAMES
        """,
        files={
            "lib/shapes.py": (
                "class Square:\n    def __init__(self, n):\n        self.n = n\n"
                "    def area(self):\n        return self.n ** 2\n"
            ),
            "lib/colors.py": "NAMES = ['red']\n",
        },
        use="pool.submit(work, 3).result()",
        expected="(9, ['red'])",
    ),
    Kind(
        title="os.chdir at the top, beside the script",
        script="""
        import os

        os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "data"))

        def work():
            return open("numbers.txt").read()
        """,
        files={"data/numbers.txt": "1 2 3"},
        use="pool.submit(work).result()",
        expected="1 2 3",
    ),
    Kind(
        title="the context of decimal",
        script="""
        from decimal import Decimal, getcontext

        getcontext().prec = 5

        def work(text):
            return Decimal(1) / Decimal(text)
        """,
        use='pool.submit(work, "3").result()',
        expected="0.33333",
    ),
    Kind(
        title="sys.setrecursionlimit",
        script="""
        import sys

        sys.setrecursionlimit(20_000)

        def depth(n):
            return n and 1 + depth(n - 1)
        """,
        use="pool.submit(depth, 5_000).result()",
        expected="5000",
    ),
    Kind(
        title="sys.set_int_max_str_digits",
        script="""
        import sys

        sys.set_int_max_str_digits(0)

        def work(n):
            return len(str(10 ** n))
        """,
        use="pool.submit(work, 5_000).result()",
        expected="5001",
    ),
    Kind(
        title="warnings.filterwarnings",
        script="""
        import warnings

        warnings.filterwarnings("error", category=UserWarning, message="odd")

        def work(number):
            try:
                warnings.warn("odd number", UserWarning)
            except UserWarning as warning:
                return f"refused: {warning}"
            return number
        """,
        use="pool.submit(work, 1).result()",
        expected="refused: odd number",
    ),
    Kind(
        title="copyreg.pickle for a type that does not pickle",
        script="""
        import copyreg
        import types

        def _module(name):
            return __import__(name)

        copyreg.pickle(types.ModuleType, lambda module: (_module, (module.__name__,)))

        import math

        def work(module):
            return module.sqrt(16), module
        """,
        use="(lambda root, module: (root, module is math))(*pool.submit(work, math).result())",
        expected="(4.0, True)",
    ),
    Kind(
        title="sqlite3.register_adapter and register_converter",
        script="""
        import sqlite3

        class Point:
            def __init__(self, x, y):
                self.x, self.y = x, y

        sqlite3.register_adapter(Point, lambda point: f"{point.x};{point.y}")
        sqlite3.register_converter("point", lambda data: Point(*map(int, data.split(b";"))))

        def work(point):
            db = sqlite3.connect(":memory:", detect_types=sqlite3.PARSE_DECLTYPES)
            db.execute("create table t (p point)")
            db.execute("insert into t values (?)", (point,))
            return db.execute("select p from t").fetchone()[0].y
        """,
        use="pool.submit(work, Point(1, 2)).result()",
        expected="2",
    ),
    Kind(
        title="csv.register_dialect and codecs.register_error",
        script="""
        import codecs
        import csv

        csv.register_dialect("pipes", delimiter="|")
        codecs.register_error("stars", lambda error: ("*" * (error.end - error.start), error.end))

        def work(line):
            return next(csv.reader([line], "pipes")), "caf\\u00e9".encode("ascii", "stars")
        """,
        use='pool.submit(work, "a|b").result()',
        expected="(['a', 'b'], b'caf*')",
    ),
    Kind(
        title="a function of another module, replaced at the top",
        script="""
        import json

        class Point:
            def __init__(self, x):
                self.x = x

        _default = json.JSONEncoder.default

        def default(self, value):
            return vars(value) if isinstance(value, Point) else _default(self, value)

        json.JSONEncoder.default = default

        def work(x):
            return json.dumps({"point": Point(x)})
        """,
        use="pool.submit(work, 3).result()",
        expected='{"point": {"x": 3}}',
    ),
    Kind(
        title="a plugin that registers itself with a module beside the script",
        script="""
        import registry

        @registry.plugin
        def shout(text):
            return text.upper()

        def work(name, text):
            return registry.run(name, text)
        """,
        files={
            "registry.py": (
                "PLUGINS = {}\n\ndef plugin(function):\n    PLUGINS[function.__name__] = function\n"
                "    return function\n\ndef run(name, text):\n    return PLUGINS[name](text)\n"
            )
        },
        use='pool.submit(work, "shout", "a").result()',
        expected="A",
    ),
    Kind(
        title="settings that the top writes into a module beside the script",
        script="""
        import settings

        settings.SCALE = 5
        settings.options["unit"] = "m"

        import engine

        def work(number):
            return engine.scaled(number), settings.options["unit"]
        """,
        files={
            "settings.py": "SCALE = 1\noptions = {}\n",
            "engine.py": "import settings\n\ndef scaled(number):\n    return settings.SCALE * number\n",
        },
        use="pool.submit(work, 2).result(), pool.submit(engine.scaled, 3).result()",
        expected="((10, 'm'), 15)",
    ),
    Kind(
        title="faulthandler, enabled at the top",
        script="""
        import faulthandler

        faulthandler.enable()

        def work():
            return faulthandler.is_enabled()
        """,
        use="pool.submit(work).result()",
        expected="True",
    ),
    Kind(
        title="a signal handler, set at the top",
        script="""
        import os
        import signal

        caught = []
        signal.signal(signal.SIGUSR1, lambda number, frame: caught.append(number))

        def work():
            os.kill(os.getpid(), signal.SIGUSR1)
            return [signal.Signals(number).name for number in caught]
        """,
        use="pool.submit(work).result()",
        expected="['SIGUSR1']",
        reason_with_fork="workers give up the handlers that they have of the host",
    ),
    Kind(
        title="a ContextVar and a thread-local value that the top sets",
        script="""
        import threading
        from contextvars import ContextVar

        user = ContextVar("user")
        user.set("top")
        local = threading.local()
        local.depth = 3

        def work():
            return user.get("nobody"), local.depth
        """,
        use="pool.submit(work).result()",
        expected="('top', 3)",
    ),
    Kind(
        title="locale, time zone, umask and settings of gc and sockets",
        script="""
        import gc
        import locale
        import os
        import socket
        import time

        os.environ["TZ"] = "EST+5"
        time.tzset()
        locale.setlocale(locale.LC_ALL, "C")
        os.umask(0o027)
        gc.disable()
        socket.setdefaulttimeout(7)

        def work():
            place = time.tzname[0], locale.setlocale(locale.LC_ALL)
            return *place, oct(os.umask(0o027)), gc.isenabled(), socket.getdefaulttimeout()
        """,
        use="pool.submit(work).result()",
        expected="('EST', 'C', '0o27', False, 7.0)",
    ),
    Kind(
        title="names that the top puts into builtins",
        script="""
        import builtins
        import gettext

        gettext.install("app")
        builtins.shout = str.upper

        def work(text):
            return _(text), shout(text)
        """,
        use='pool.submit(work, "a").result()',
        expected="('a', 'A')",
    ),
]
