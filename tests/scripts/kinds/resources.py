"""Globals that do not pickle, and that tasks use: files, connections, and objects of C modules."""

from __future__ import annotations

from tests.scripts.kind import global_used

KINDS = [
    global_used(
        "a file that is open for reading",
        "source = open(__file__)",
        'source.seek(0)\nreturn "ProcessPoolExecutor" in source.read()',
        "True",
    ),
    global_used(
        "a file that is open for writing",
        """
from pathlib import Path

log = open(Path(__file__).with_name("log.txt"), "a")
""",
        'print("task", number, file=log, flush=True)\nreturn Path(__file__).with_name("log.txt").read_text().strip()',
        "task 3",
    ),
    global_used(
        "sys.stdout under another name",
        "import sys\n\nout = sys.stdout",
        'print("from the task", file=out, flush=True)\nreturn number',
        "from the task\n3",
    ),
    global_used(
        "io.StringIO and io.BytesIO",
        'import io\n\ntext, data = io.StringIO("head "), io.BytesIO(b"abc")',
        "text.seek(0, 2)\ntext.write(str(number))\nreturn text.getvalue(), data.read(2)",
        "('head 3', b'ab')",
    ),
    global_used(
        "tempfile.TemporaryDirectory and NamedTemporaryFile",
        "import tempfile\nfrom pathlib import Path\n\nfolder = tempfile.TemporaryDirectory()",
        'path = Path(folder.name) / "x"\npath.write_text(str(number))\nreturn path.read_text()',
        "3",
        says=".*Implicitly cleaning up.*",
    ),
    global_used(
        "a sqlite3 connection in memory",
        """
import sqlite3

db = sqlite3.connect(":memory:")
db.execute("create table t (n)")
db.executemany("insert into t values (?)", [(1,), (2,)])
""",
        'db.execute("insert into t values (?)", (number,))\nreturn db.execute("select sum(n) from t").fetchone()',
        "(6,)",
    ),
    global_used(
        "a sqlite3 connection to a file",
        """
import sqlite3

db = sqlite3.connect("data.db")
db.execute("create table if not exists t (n)")
""",
        'with db:\n    db.execute("insert into t values (?)", (number,))\n'
        'return db.execute("select n from t").fetchall()',
        "[(3,)]",
    ),
    global_used(
        "a pair of sockets",
        "import socket\n\nleft, right = socket.socketpair()",
        "left.sendall(bytes([number]))\nreturn right.recv(10)",
        "b'\\x03'",
    ),
    global_used(
        "a pipe of multiprocessing",
        "from multiprocessing import Pipe\n\nreader, writer = Pipe(duplex=False)",
        'writer.send({"n": number})\nreturn reader.recv()',
        "{'n': 3}",
    ),
    global_used(
        "a selector",
        "import os\nimport selectors\n\nread, write = os.pipe()\nselector = selectors.DefaultSelector()\n"
        'selector.register(read, selectors.EVENT_READ, "pipe")',
        'os.write(write, b"x")\nreturn [key.data for key, _ in selector.select(5)]',
        "['pipe']",
    ),
    global_used(
        "mmap, memoryview and ctypes arrays",
        "import ctypes\nimport mmap\n\narea = mmap.mmap(-1, 4096)\nview = memoryview(b'abcdef')\n"
        "numbers = (ctypes.c_int * 3)(1, 2, 3)",
        "area[0] = number\nreturn area[0], bytes(view[1:number]), sum(numbers)",
        "(3, b'bc', 6)",
    ),
    global_used(
        "a generator",
        "def ids():\n    n = 10\n    while True:\n        yield n\n        n += 1\n\nnumbers = ids()",
        "return [next(numbers) for _ in range(number)]",
        "[10, 11, 12]",
    ),
    global_used(
        "itertools.count and cycle",
        'import itertools\n\nids = itertools.count(5)\ncolors = itertools.cycle("ab")',
        "return [(next(ids), next(colors)) for _ in range(number)]",
        "[(5, 'a'), (6, 'b'), (7, 'a')]",
    ),
    global_used(
        "struct.Struct",
        'import struct\n\nHEADER = struct.Struct("<HI")',
        "return HEADER.unpack(HEADER.pack(number, 7)), HEADER.size",
        "((3, 7), 6)",
    ),
    global_used(
        "ctypes.Structure",
        """
import ctypes

class Header(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_uint8), ("size", ctypes.c_uint32)]
""",
        "header = Header(number, 9)\nreturn header.kind, header.size, ctypes.sizeof(Header)",
        "(3, 9, 8)",
    ),
    global_used(
        "ctypes.CDLL and a callback",
        """
import ctypes

libc = ctypes.CDLL(None)
libc.strlen.restype = ctypes.c_size_t
COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))

@COMPARE
def compare(a, b):
    return a[0] - b[0]
""",
        "values = (ctypes.c_int * 3)(2, number, 1)\nlibc.qsort(values, 3, ctypes.sizeof(ctypes.c_int), compare)\n"
        'return list(values), libc.strlen(b"abcd")',
        "([1, 2, 3], 4)",
    ),
    global_used(
        "ssl.SSLContext",
        "import ssl\n\ncontext = ssl.create_default_context()\ncontext.check_hostname = False",
        "return context.verify_mode.name, context.check_hostname",
        "('CERT_REQUIRED', False)",
    ),
    global_used(
        "hashlib and hmac objects",
        'import hashlib\nimport hmac\n\nbase = hashlib.sha256(b"salt")\nsigner = hmac.new(b"key", digestmod="sha1")',
        "digest = base.copy()\ndigest.update(bytes(number))\nsigner.update(b'x')\n"
        "return digest.hexdigest()[:6], signer.hexdigest()[:6]",
        "('071fae', '2a00e8')",
    ),
    global_used(
        "zlib, bz2 and incremental decoders",
        """
import codecs
import zlib

compressor = zlib.compressobj()
decoder = codecs.getincrementaldecoder("utf-8")()
""",
        'data = compressor.compress(b"abc" * number) + compressor.flush()\n'
        'return zlib.decompress(data), decoder.decode(b"caf\\xc3")',
        "(b'abcabcabc', 'caf')",
    ),
    global_used(
        "weak dictionaries and sets",
        """
import weakref

class Item:
    def __init__(self, n):
        self.n = n

items, kept, owners = weakref.WeakValueDictionary(), [], weakref.WeakKeyDictionary()
living = weakref.WeakSet()
""",
        "item = Item(number)\nkept.append(item)\nitems[number] = item\nowners[item] = 'me'\nliving.add(item)\n"
        "return items[number].n, owners[item], len(living)",
        "(3, 'me', 1)",
    ),
    global_used(
        "weakref.ref and weakref.finalize",
        """
import weakref

class Pool:
    name = "pool"

pool_ = Pool()
reference = weakref.ref(pool_)
done = []
weakref.finalize(pool_, done.append, "gone")
""",
        "return reference().name, done",
        "('pool', [])",
    ),
    global_used(
        "a module object, a code object and a frame's function",
        'import types\n\nsettings = types.ModuleType("settings")\nsettings.DEPTH = 2\n'
        'code = compile("depth * number", "<rule>", "eval")',
        'return eval(code, {"depth": settings.DEPTH, "number": number})',
        "6",
    ),
    global_used(
        "subprocess.Popen that the top has started",
        """
import atexit
import subprocess
import sys

child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
atexit.register(child.communicate, b"end\\n")
""",
        "return child.pid > 0, child.args[1:]",
        """(True, ['-c', 'input()'])""",
    ),
    global_used(
        "urllib and http objects",
        """
import http.cookiejar
import urllib.request

cookies = http.cookiejar.CookieJar()
opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies))
""",
        'return opener.open("data:,hello").read(), len(cookies)',
        "(b'hello', 0)",
    ),
]
