"""Annotations: what they name may not be there when the program runs, and they are read in tasks."""

from __future__ import annotations

from tests.scripts.kind import Kind

_NAMED_BY_TYPE_CHECKING = """
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decimal import Decimal
"""

KINDS = [
    Kind(
        title="annotations of an import under TYPE_CHECKING, in quotes",
        script=f"""{_NAMED_BY_TYPE_CHECKING}
def work(number: "Decimal") -> "Decimal":
    return number * 2
""",
        use="pool.submit(work, 2).result()",
        expected="4",
    ),
    Kind(
        title="annotations of an import under TYPE_CHECKING, from __future__ import annotations",
        script=f"""from __future__ import annotations
{_NAMED_BY_TYPE_CHECKING}
class Account:
    balance: Decimal

    def __init__(self, balance: Decimal) -> None:
        self.balance = balance

def work(account: Account, by: Decimal) -> Account:
    other: Decimal = account.balance + by
    return Account(other)
""",
        use="pool.submit(work, Account(2), 3).result().balance",
        expected="5",
    ),
    Kind(
        title="annotations of an import under TYPE_CHECKING, unquoted: a function",
        script=f"""{_NAMED_BY_TYPE_CHECKING}
def work(number: Decimal) -> Decimal:
    return number * 2
""",
        use="pool.submit(work, 2).result()",
        since=(3, 14),
        expected="4",
    ),
    Kind(
        title="annotations of an import under TYPE_CHECKING, unquoted: a class and its methods",
        script=f"""{_NAMED_BY_TYPE_CHECKING}
class Account:
    balance: Decimal

    def __init__(self, balance: Decimal) -> None:
        self.balance = balance

    def add(self, by: Decimal) -> Account:
        return Account(self.balance + by)

def work(account):
    return account.add(3)
""",
        use="pool.submit(work, Account(2)).result().balance, pool.submit(Account(1).add, 1).result().balance",
        since=(3, 14),
        expected="(5, 2)",
    ),
    Kind(
        title="annotations of an import under TYPE_CHECKING, unquoted: a dataclass",
        script=f"""from dataclasses import dataclass
{_NAMED_BY_TYPE_CHECKING}
@dataclass
class Account:
    owner: str
    balance: Decimal
    history: list[Decimal] | None = None

def work(account):
    return Account(account.owner, account.balance + 1)
""",
        use='pool.submit(work, Account("a", 2)).result()',
        since=(3, 14),
        expected="Account(owner='a', balance=3, history=None)",
    ),
    Kind(
        title="annotations of an import under TYPE_CHECKING, unquoted: lru_cache and an initializer",
        script=f"""from functools import lru_cache
{_NAMED_BY_TYPE_CHECKING}
def prepare(given: Decimal) -> None:
    global base
    base = given

@lru_cache
def work(number: Decimal) -> Decimal:
    return number + base

if __name__ == "__main__":
    with ProcessPoolExecutor(2, initializer=prepare, initargs=(10,)) as pool:
        print(pool.submit(work, 2).result())
""",
        since=(3, 14),
        expected="12",
    ),
    Kind(
        title="a function annotated with a class that stands below it",
        script="""
        def work(item: Item) -> list[Item]:
            return [item, Item(item.n + 1)]

        class Item:
            def __init__(self, n):
                self.n = n
        """,
        use="[item.n for item in pool.submit(work, Item(1)).result()]",
        since=(3, 14),
        expected="[1, 2]",
    ),
    Kind(
        title="typing.get_type_hints of a function, in the task",
        script="""
        from typing import get_type_hints

        class Item:
            pass

        def convert(item: Item, times: "int" = 2) -> list[Item]:
            return [item] * times

        def work():
            hints = get_type_hints(convert)
            return hints["item"] is Item, hints["times"] is int, hints["return"] == list[Item]
        """,
        use="pool.submit(work).result()",
        expected="(True, True, True)",
    ),
    Kind(
        title="typing.get_type_hints after from __future__ import annotations, in the task",
        script="""
        from __future__ import annotations

        from typing import get_type_hints

        class Base:
            id: int

        class Item(Base):
            name: str | None
            parent: Item | None

        def work(item: Item) -> Item:
            hints = get_type_hints(type(item))
            return list(hints), hints["parent"] == Item | None, get_type_hints(work)["return"] is Item
        """,
        use="pool.submit(work, Item()).result()",
        expected="(['id', 'name', 'parent'], True, True)",
    ),
    Kind(
        title="typing.get_type_hints of a class, a NamedTuple and a TypedDict, in the task",
        script="""
        from typing import NamedTuple, TypedDict, get_type_hints

        class Plain:
            a: int
            b: "str"

        class Row(NamedTuple):
            c: int

        class Options(TypedDict):
            d: int

        def work(*classes):
            return [sorted(get_type_hints(one)) for one in (Plain, Row, Options)]
        """,
        use="pool.submit(work, Plain, Row).result()",
        expected="[['a', 'b'], ['c'], ['d']]",
    ),
    Kind(
        title="a converter that reads the annotations of a class",
        script="""
        class Settings:
            port: int = 80
            host: str = "localhost"
            ratio: float = 0.5

        def load(text):
            settings = Settings()
            for line in text.split():
                name, _, value = line.partition("=")
                setattr(settings, name, Settings.__annotations__[name](value))
            return settings
        """,
        use='vars(pool.submit(load, "port=8080 ratio=0.25").result())',
        expected="{'port': 8080, 'ratio': 0.25}",
    ),
    Kind(
        title="inspect.signature and functions annotated with strings, in the task",
        script="""
        import inspect

        def convert(value: int, *, unit: str = "m") -> "float":
            return float(value)

        def work():
            return str(inspect.signature(convert))
        """,
        use="pool.submit(work).result()",
        expected="(value: int, *, unit: str = 'm') -> 'float'",
    ),
    Kind(
        title="Annotated, Literal, Final, Self and overload",
        script="""
        from typing import Annotated, Final, Literal, Self, get_type_hints, overload

        LIMIT: Final = 3
        Small = Annotated[int, "small"]

        class Builder:
            def add(self, n: Small) -> Self:
                self.n = n
                return self

        @overload
        def pick(mode: Literal["one"]) -> int: ...
        @overload
        def pick(mode: Literal["many"]) -> list[int]: ...
        def pick(mode):
            return LIMIT if mode == "one" else [LIMIT]

        def work(builder):
            hints = get_type_hints(Builder.add, include_extras=True)
            return builder.add(2).n, pick("many"), hints["n"].__metadata__
        """,
        use="pool.submit(work, Builder()).result()",
        expected="(2, [3], ('small',))",
    ),
    Kind(
        title="annotationlib, in the task",
        script="""
        from annotationlib import Format, get_annotations

        class Item:
            name: str
            owner: Unknown | None

        def work(item):
            return get_annotations(type(item), format=Format.STRING)
        """,
        use="pool.submit(work, Item()).result()",
        since=(3, 14),
        expected="{'name': 'str', 'owner': 'Unknown | None'}",
    ),
]
