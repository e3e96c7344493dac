"""Generic classes, type parameters, aliases and other objects that are known by their name in the script."""

from __future__ import annotations

from tests.scripts.kind import Kind

KINDS = [
    Kind(
        title="Generic[T]",
        script="""
        from typing import Generic, TypeVar

        T = TypeVar("T")

        class Box(Generic[T]):
            def __init__(self, item: T) -> None:
                self.item = item

            def get(self) -> T:
                return self.item

        def work(box: Box[int]) -> Box[str]:
            return Box[str](str(box.get() + 1))
        """,
        use="(lambda box: (type(box) is Box, box.get()))(pool.submit(work, Box[int](1)).result())",
        expected="(True, '2')",
    ),
    Kind(
        title="a TypeVar as an argument and as a result",
        script="""
        from typing import TypeVar

        Number = TypeVar("Number", int, float)

        def work(variable):
            return variable is Number, Number
        """,
        use="(lambda same, back: (same, back is Number))(*pool.submit(work, Number).result())",
        expected="(True, True)",
    ),
    Kind(
        title="ParamSpec in a decorator",
        script="""
        from collections.abc import Callable
        from functools import wraps
        from typing import ParamSpec, TypeVar

        P = ParamSpec("P")
        R = TypeVar("R")

        def twice(function: Callable[P, R]) -> Callable[P, tuple[R, R]]:
            @wraps(function)
            def wrapper(*args: P.args, **kwargs: P.kwargs) -> tuple[R, R]:
                return function(*args, **kwargs), function(*args, **kwargs)
            return wrapper

        @twice
        def work(number: int) -> int:
            return number + 1
        """,
        use="pool.submit(work, 1).result()",
        expected="(2, 2)",
    ),
    Kind(
        title="Generic[P, T]",
        script="""
        from typing import Callable, Generic, ParamSpec, TypeVar

        P = ParamSpec("P")
        T = TypeVar("T")

        class Task(Generic[P, T]):
            def __init__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> None:
                self.function, self.args, self.kwargs = function, args, kwargs

            def run(self) -> T:
                return self.function(*self.args, **self.kwargs)

        def add(a: int, b: int) -> int:
            return a + b

        def work(task: Task[..., int]) -> int:
            return task.run()
        """,
        use="pool.submit(work, Task(add, 1, b=2)).result()",
        expected="3",
    ),
    Kind(
        title="TypeVarTuple",
        script="""
        from typing import Generic, TypeVarTuple, Unpack

        Shape = TypeVarTuple("Shape")

        class Array(Generic[Unpack[Shape]]):
            def __init__(self, *shape: Unpack[Shape]) -> None:
                self.shape = shape

        def work(array):
            return Array(*reversed(array.shape)).shape, Array.__parameters__[0] is Shape
        """,
        use="pool.submit(work, Array(2, 3)).result()",
        expected="((3, 2), True)",
    ),
    Kind(
        title="class C[T] and def f[T]",
        script="""
        class Stack[T]:
            def __init__(self, *items: T) -> None:
                self.items = list(items)

            def push(self, item: T) -> "Stack[T]":
                return Stack(*self.items, item)

        def first[T](items: list[T]) -> T:
            return items[0]

        def work(stack: Stack[int]) -> tuple[int, Stack[int]]:
            return first(stack.items), stack.push(3)
        """,
        use="(lambda n, stack: (n, stack.items, type(stack) is Stack))(*pool.submit(work, Stack(1, 2)).result())",
        since=(3, 12),
        expected="(1, [1, 2, 3], True)",
    ),
    Kind(
        title="class C[T: bound, *Ts]",
        script="""
        class Keyed[K: (int, str), *Ts]:
            def __init__(self, key: K, *rest: *Ts) -> None:
                self.key, self.rest = key, rest

            def names(self):
                return [parameter.__name__ for parameter in type(self).__type_params__]

        def work(keyed):
            return keyed.names(), Keyed.__type_params__[0].__constraints__
        """,
        use="pool.submit(work, Keyed(1, 2)).result()",
        since=(3, 12),
        expected="(['K', 'Ts'], (<class 'int'>, <class 'str'>))",
    ),
    Kind(
        title="class C[**P, R]",
        script="""
        from collections.abc import Callable

        class Deferred[**P, R]:
            def __init__(self, function: Callable[P, R]) -> None:
                self.function = function

            def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
                return self.function(*args, **kwargs)

        def add(a, b):
            return a + b

        def work(deferred):
            return deferred(1, b=2), type(deferred) is Deferred
        """,
        use="pool.submit(work, Deferred(add)).result()",
        since=(3, 12),
        expected="(3, True)",
    ),
    Kind(
        title="NewType, called in the task",
        script="""
        from typing import NewType

        UserId = NewType("UserId", int)

        def work(number):
            return UserId(number + 1), UserId.__supertype__
        """,
        use="pool.submit(work, UserId(4)).result()",
        expected="(5, <class 'int'>)",
    ),
    Kind(
        title="NewType, in annotations only",
        script="""
        from typing import NewType

        UserId = NewType("UserId", int)
        Scores = dict[UserId, float]

        def best(scores: Scores) -> UserId:
            return max(scores, key=scores.__getitem__)
        """,
        use="pool.submit(best, {UserId(1): 0.5, UserId(2): 0.7}).result()",
        expected="2",
    ),
    Kind(
        title="NewType, in a table of types that the task uses",
        script="""
        from typing import NewType

        Meters = NewType("Meters", float)
        CONVERTERS = {"m": Meters, "n": int}

        def work(kind, text):
            return CONVERTERS[kind](text)
        """,
        use='pool.submit(work, "m", 1.5).result(), pool.submit(work, "n", "3").result()',
        expected="(1.5, 3)",
    ),
    Kind(
        title="type X = ...",
        script="""
        type Pair[T] = tuple[T, T]
        type Names = list[str]

        def work(names: Names) -> Pair[str]:
            return names[0], Names.__value__.__name__

        def same(alias):
            return alias is Names
        """,
        use='pool.submit(work, ["a", "b"]).result(), pool.submit(same, Names).result()',
        since=(3, 12),
        expected="(('a', 'list'), True)",
    ),
    Kind(
        title="Protocol, checked at run time",
        script="""
        from typing import Protocol, runtime_checkable

        @runtime_checkable
        class Closable(Protocol):
            def close(self) -> None: ...

        class File:
            def close(self) -> None:
                pass

        def work(things: list[object]) -> list[bool]:
            return [isinstance(thing, Closable) for thing in things]
        """,
        use="pool.submit(work, [File(), 3]).result()",
        expected="[True, False]",
    ),
    Kind(
        title="a singleton whose __reduce__ returns its name",
        script="""
        class Missing:
            def __repr__(self):
                return "MISSING"

            def __reduce__(self):
                return "MISSING"

        MISSING = Missing()

        def work(value, default=MISSING):
            return value is MISSING, default is MISSING, MISSING
        """,
        use="(lambda a, b, back: (a, b, back is MISSING))(*pool.submit(work, MISSING).result())",
        expected="(True, True, True)",
    ),
    Kind(
        title="object() as a default, compared by identity in the task",
        script="""
        UNSET = object()

        def get(mapping, key, default=UNSET):
            value = mapping.get(key, UNSET)
            if value is UNSET and default is UNSET:
                return "neither"
            return default if value is UNSET else value
        """,
        use='pool.submit(get, {}, "a").result(), pool.submit(get, {}, "a", 1).result()',
        expected="('neither', 1)",
    ),
    Kind(
        title="a sentinel",
        script="""
        MISSING = sentinel("MISSING")

        def work(value=MISSING):
            return value is MISSING, MISSING

        def annotated(value: int | MISSING) -> int | MISSING:
            return value
        """,
        use="""(lambda same, back: (same, back is MISSING, pool.submit(annotated, MISSING).result() is MISSING))(
            *pool.submit(work, MISSING).result())""",
        since=(3, 15),
        expected="(True, True, True)",
    ),
    Kind(
        title="an instance of a class that is found through a global of another name",
        script="""
        class _Implementation:
            def run(self):
                return "ran"

        Public = _Implementation
        del _Implementation
        _Implementation = Public

        def work(thing):
            return thing.run(), type(thing) is Public
        """,
        use="pool.submit(work, Public()).result()",
        expected="('ran', True)",
    ),
]
