"""Globals that are values of the standard library's types."""

from __future__ import annotations

from tests.scripts.kind import Kind, global_used

KINDS = [
    global_used(
        "re patterns and string.Template",
        "import re\nfrom string import Template\n\n"
        'WORD = re.compile(r"\\w+", re.ASCII)\nGREETING = Template("hi $name")',
        'return WORD.findall("a b"), GREETING.substitute(name=number)',
        "(['a', 'b'], 'hi 3')",
    ),
    global_used(
        "datetime, zoneinfo and timedelta",
        """
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

UTC = ZoneInfo("UTC")
START = datetime(2024, 1, 1, tzinfo=UTC)
STEP = timedelta(hours=1)
EAST = timezone(timedelta(hours=2), "EAST")
""",
        "moment = START + number * STEP\nreturn moment.isoformat(), moment.tzinfo is UTC, "
        "moment.astimezone(EAST).strftime('%H %Z')",
        "('2024-01-01T03:00:00+00:00', True, '05 EAST')",
    ),
    global_used(
        "decimal, fractions and a decimal context",
        """
from decimal import ROUND_UP, Context, Decimal
from fractions import Fraction

CONTEXT = Context(prec=3, rounding=ROUND_UP)
RATE, PART = Decimal("1.1"), Fraction(1, 3)
""",
        "return CONTEXT.divide(RATE, number), PART * number",
        "(Decimal('0.367'), Fraction(1, 1))",
    ),
    global_used(
        "random.Random with a seed",
        "import random\n\ndice = random.Random(7)\nsecure = random.SystemRandom()",
        "return [dice.randint(1, 6) for _ in range(number)], secure.random() < 1",
        "([3, 2, 4], True)",
        workers=1,
    ),
    global_used(
        "pathlib, uuid and ipaddress",
        """
import ipaddress
import uuid
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent
NETWORK = ipaddress.ip_network("10.0.0.0/30")
ID = uuid.UUID(int=5)
""",
        "return (ROOT / 'script.py').exists(), len(list(NETWORK.hosts())), ID.int + number, PurePosixPath('/a').name",
        "(True, 2, 8, 'a')",
    ),
    global_used(
        "types.MappingProxyType, SimpleNamespace and ChainMap",
        """
from collections import ChainMap, OrderedDict
from types import MappingProxyType, SimpleNamespace

LIMITS = MappingProxyType({"low": 1, "high": 9})
OPTIONS = SimpleNamespace(mode="fast", depth=2)
LAYERS = ChainMap({"a": 1}, OrderedDict(b=2))
""",
        'return LIMITS["high"], OPTIONS.mode, LAYERS["b"], dict(LIMITS)',
        "(9, 'fast', 2, {'low': 1, 'high': 9})",
    ),
    global_used(
        "array, bytearray, range, slice and complex",
        'from array import array\n\nDATA, RAW = array("d", [1, 2, 3]), bytearray(b"abc")\n'
        "PART, NUMBERS, POINT = slice(1, None), range(0, 10, 3), 1 + 2j",
        "RAW[0] = number\nreturn list(DATA[PART]), bytes(RAW), NUMBERS[number], abs(POINT.imag), DATA.typecode",
        "([2.0, 3.0], b'\\x03bc', 9, 2.0, 'd')",
    ),
    global_used(
        "builtins and functions of C modules under other names",
        """
import math
import operator
from functools import partial, reduce

root, largest, parse = math.sqrt, max, int.from_bytes
product = partial(reduce, operator.mul)
upper = str.upper
""",
        'return root(9), largest(1, number), parse(b"\\x01", "big"), product([2, number]), upper("a"), ...',
        "(3.0, 3, 1, 6, 'A', Ellipsis)",
    ),
    global_used(
        "map, filter, zip and iterators",
        'pairs = zip("ab", [1, 2])\nbig = filter(None, [0, 1])\nletters = iter("xyz")\nbackwards = reversed([1, 2])',
        "return next(pairs), next(big), next(letters), list(backwards)",
        "(('a', 1), 1, 'x', [2, 1])",
    ),
    global_used(
        "argparse.ArgumentParser and configparser",
        """
import argparse
import configparser

parser = argparse.ArgumentParser(prog="tool")
parser.add_argument("--level", type=int, default=1)
config = configparser.ConfigParser()
config.read_string("[a]\\nb = 2")
""",
        'return parser.parse_args(["--level", "4"]).level, config.getint("a", "b")',
        "(4, 2)",
    ),
    global_used(
        "json, csv and pprint objects",
        """
import json
import pprint

encoder, decoder = json.JSONEncoder(sort_keys=True), json.JSONDecoder()
printer = pprint.PrettyPrinter(width=20)
""",
        'return encoder.encode({"b": number, "a": 1}), decoder.decode("[1]"), printer.pformat([number])',
        """('{"a": 1, "b": 3}', [1], '[3]')""",
    ),
    global_used(
        "ast, dis and tokenize objects",
        'import ast\n\nTREE = ast.parse("number * 2", mode="eval")\nCODE = compile(TREE, "<rule>", "eval")',
        "return eval(CODE, {'number': number}), type(TREE.body).__name__",
        "(6, 'BinOp')",
    ),
    Kind(
        title="objects of the standard library as arguments and results",
        script="""
        import collections
        import datetime
        import decimal
        import pathlib

        def work(moment, amount, path, counts, text):
            counts.update(text)
            return moment.date(), amount * 2, path / text, counts.most_common(1)
        """,
        use="""pool.submit(work, datetime.datetime(2024, 5, 6), decimal.Decimal("1.5"), pathlib.PurePosixPath("/a"),
            collections.Counter("b"), "bc").result()""",
        expected="(datetime.date(2024, 5, 6), Decimal('3.0'), PurePosixPath('/a/bc'), [('b', 2)])",
    ),
    Kind(
        title="a memoryview and large bytes, made in the task and by the host",
        script="""
        BLOCK = bytes(range(256)) * 1000
        VIEW = memoryview(BLOCK)[10:20]

        def work(data):
            return data[:2] + bytes(VIEW[:2]), len(BLOCK)
        """,
        use="pool.submit(work, BLOCK[5:]).result()",
        expected="(b'\\x05\\x06\\n\\x0b', 256000)",
    ),
]
