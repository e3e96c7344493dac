"""What a user types or writes into a host: statements by topic, and what must come of them.

A topic is what is defined, and how that is then used with a pool. A host that takes statements one by one is given
one topic; a script is all of them, with the definitions at its head. Statements are parted by blank lines, as cells
of a notebook are; none has a blank line in it, which would end it at the prompt.
"""

from __future__ import annotations

MAKE_POOL = """
from tests.hosts.programs.contender import ProcessPoolExecutor

pool = ProcessPoolExecutor(2)
"""

FINE = "all is well"
SAY_FINE = f"print({FINE!r}, flush=True)"

FUNCTIONS = (
    """
import functools

import math as mathematics

rate = 3

def plain(number, factor=2):
    return number * factor

def scaled(number):
    return plain(number) * rate

def root(number):
    return mathematics.sqrt(number)

def factorial(number):
    return 1 if number < 2 else number * factorial(number - 1)

def is_even(number):
    return number == 0 or is_odd(number - 1)

def is_odd(number):
    return number != 0 and is_even(number - 1)

def adder(first):
    return lambda second: first + second

square = lambda number: number * number
""",
    """
assert list(pool.map(plain, range(5))) == [0, 2, 4, 6, 8], "a function gives a wrong result"

assert pool.submit(plain, 5, factor=3).result(20) == 15, "a keyword argument is lost"

assert pool.submit(scaled, 5).result(20) == 30, "a function does not see a global variable"

assert pool.submit(root, 49).result(20) == 7, "a function does not see a module that was imported before"

assert pool.submit(factorial, 5).result(20) == 120, "a recursive function gives a wrong result"

assert pool.submit(is_even, 10).result(20) is True, "functions that call each other give a wrong result"

assert pool.submit(functools.partial(plain, factor=4), 5).result(20) == 20, "a partial gives a wrong result"
""",
)

LAMBDAS = (
    FUNCTIONS[0],
    """
assert pool.submit(square, 7).result(20) == 49, "a lambda gives a wrong result"

assert pool.submit(adder(3), 4).result(20) == 7, "a closure gives a wrong result"

assert pool.submit(adder, 3).result(20)(4) == 7, "a closure does not come back as a result"
""",
)

CLASSES = (
    """
import collections

import dataclasses

import enum

class Account:
    opened = 0
    def __init__(self, balance):
        self.balance = balance
    def pay(self, amount):
        return type(self)(self.balance + amount)

class Savings(Account):
    def pay(self, amount):
        return super().pay(2 * amount)

@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: int = 0

class Colour(enum.Enum):
    RED = 1
    BLUE = 2

Pair = collections.namedtuple("Pair", "left right")

def same(value):
    return value

def swap(pair):
    return Pair(pair.right, pair.left)

def is_account(value):
    return isinstance(value, Account)
""",
    """
paid = pool.submit(Savings(5).pay, 3).result(20)

assert type(paid) is Savings and isinstance(paid, Account), "a result is of another class than the host's"

assert paid.balance == 11, "a method gives a wrong result"

assert pool.submit(is_account, Savings(1)).result(20) is True, "an argument is of another class than the worker's"

assert pool.submit(Point, 1).result(20) == Point(1), "a dataclass is not equal to the host's"

assert pool.submit(same, Colour.RED).result(20) is Colour.RED, "a member of an Enum is another object"

assert pool.submit(swap, Pair(1, 2)).result(20) == Pair(2, 1), "a namedtuple gives a wrong result"

assert type(pool.submit(swap, Pair(1, 2)).result(20)) is Pair, "a namedtuple is of another class"
""",
)

EXCEPTIONS = (
    """
class Refused(ValueError):
    def __init__(self, what, code):
        super().__init__(what)
        self.code = code
    def __reduce__(self):
        return type(self), (*self.args, self.code)

def refuse():
    raise Refused("no", 7)

def generate():
    yield 1
""",
    """
try:
    pool.submit(refuse).result(20)
except Refused as error:
    refused = error

assert (str(refused), refused.code) == ("no", 7), "an exception loses what it holds"

unpicklable = pool.submit(generate).exception(20)

assert "generator" in str(unpicklable), f"a generator as a result is refused with {unpicklable!r}"

assert pool.submit(len, "abc").result(20) == 3, "the pool does not go on after a failed task"
""",
)

LATER = (
    "",
    """
assert pool.submit(abs, -1).result(20) == 1, "a wrong result"

def new(number):
    return number + 1

class New:
    def __init__(self, number):
        self.number = number
    def next(self):
        return New(new(self.number))

assert pool.submit(new, 1).result(20) == 2, "a function gives a wrong result"

assert type(pool.submit(New(1).next).result(20)) is New, "a result is of another class than the host's"
""",
)

AGAIN = (
    """
def answer():
    return 1

def ask():
    return answer()
""",
    """
assert pool.submit(answer).result(20) == 1, "a wrong result"

def answer():
    return 2

assert pool.submit(answer).result(20) == 2, "the old definition runs"

assert pool.submit(ask).result(20) == 2, "the old definition is called"
""",
)

GLOBALS = (
    """
limit = 1

def above(number):
    return number > limit
""",
    """
assert pool.submit(above, 5).result(20) is True, "a wrong result"

futures = []

for limit in (10, 2, 20):
    futures.append(pool.submit(above, 5))

limit = 100

answers = [future.result(20) for future in futures]

assert answers == [False, True, False], "a task sees another value than there was when it was submitted"
""",
)

CHANGED = (
    """
class Counted:
    seen = []
    limit = 1
    def above(self, number):
        return number > self.limit

def give_back(value):
    return value
""",
    """
assert type(pool.submit(give_back, Counted()).result(20)) is Counted, "a result is of another class than the host's"

Counted.limit = 10

assert pool.submit(Counted().above, 5).result(20) is False, "a worker does not see a changed class"

seen, future = Counted.seen, pool.submit(give_back, Counted())

Counted.limit = 100

Counted.seen.append("something")

assert type(future.result(20)) is Counted, "a result is of another class than the host's"

assert Counted.limit == 100, "a result undoes a change to its class"

assert Counted.seen is seen and seen == ["something"], "a result replaces what its class holds"

class Counted:
    limit = 7

assert pool.submit(give_back, Counted()).result(20).limit == 7, "an object of the old class comes back"
""",
)

KEPT = (
    """
limit = 1

calls = 0

found = {}

base = None

def begin(value):
    global base
    base = value

def count():
    global calls
    calls += 1
    return base + calls

def find(number):
    return found.setdefault(number, limit)
""",
    """
one = ProcessPoolExecutor(1, initializer=begin, initargs=(10,))

assert one.submit(count).result(20) == 11, "a task does not see what the initializer has set"

assert one.submit(find, 5).result(20) == 1, "a wrong result"

limit = 2

assert one.submit(find, 6).result(20) == 2, "a task does not see a global variable that was changed meanwhile"

assert one.submit(find, 5).result(20) == 1, "a worker's cache is lost"

assert one.submit(count).result(20) == 12, "what a task has set is lost"

def count():
    global calls
    calls += 100
    return base + calls

assert one.submit(count).result(20) == 112, "what a task has set is lost when its function is defined anew"

calls = 5

assert one.submit(count).result(20) == 115, "a task does not see a global variable that was changed meanwhile"

one.shutdown()
""",
)

TOPICS = {
    "functions": FUNCTIONS,
    "lambdas and closures": LAMBDAS,
    "classes": CLASSES,
    "exceptions": EXCEPTIONS,
    "defined after the first submit": LATER,
    "a function is defined anew": AGAIN,
    "a global variable changes": GLOBALS,
    "a class is changed": CHANGED,
    "what a worker sets lasts": KEPT,
}


# What is there before the pool, and what only comes up while it is in use.
STEADY = ("functions", "classes", "exceptions")
CHANGING = tuple(topic for topic in TOPICS if topic not in STEADY)


def cells(text: str) -> list[str]:
    """Return the statements of a text, each without a blank line in it."""
    return [cell for cell in (part.strip("\n") for part in text.split("\n\n")) if cell]


def session(*topics: str) -> list[str]:
    """Return statements that are given one by one: for each topic definitions, a pool and its uses; all is well."""
    typed = []
    for topic in topics:
        definitions, uses = TOPICS[topic]
        typed += [*cells(definitions), *cells(MAKE_POOL), *cells(uses), "pool.shutdown()"]
    return [*typed, SAY_FINE]


def script() -> str:
    """Return a program that defines what a program would, without a guard, and uses all of it."""
    topics = [TOPICS[topic] for topic in STEADY]
    parts = [*(definitions for definitions, _ in topics), MAKE_POOL, *(uses for _, uses in topics), SAY_FINE, ""]
    return "\n".join(parts)
