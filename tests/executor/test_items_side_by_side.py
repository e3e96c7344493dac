"""The items of several iterables side by side, some of which are asynchronous. Without a map."""

from __future__ import annotations

from pidfdpool.executor.async_items import Items
from pidfdpool.executor.map_request import MapRequest
from tests.executor.amap_calls import Inputs, function, of, run


def items_of(*iterables, **how):
    return Items(MapRequest(function, iterables, **how))


def test_items_are_read_one_by_one_until_one_of_them_ends():
    async def main():
        items = items_of(of(1, 2), iter([3, 4, 5]))
        assert [await items.next() for _ in range(3)] == [(1, 3), (2, 4), None]
        items = items_of([1], of(2, 3))
        assert [await items.next() for _ in range(2)] == [(1, 2), None]
        items = items_of(of(None))
        assert [await items.next(), await items.next()] == [(None,), None]

    run(main())


def test_ordinary_iterators_and_those_that_cannot_be_closed_are_left_alone():
    closed = []

    def ordinary():
        try:
            yield 1
        finally:
            closed.append(1)

    class NoClose:
        def __aiter__(self):
            return self

        async def __anext__(self):
            return 5

    class Both:
        """Has a method of that name, and is read as an ordinary one."""

        def __iter__(self):
            return self

        def __next__(self):
            return 7

        async def aclose(self):
            raise AssertionError

    async def main():
        plain, inputs = ordinary(), Inputs()
        items = items_of(plain, NoClose(), inputs, Both())
        assert await items.next() == (1, 5, 0, 7)
        await items.close()
        await items.close()
        assert (closed, inputs.closed) == ([], 1)
        assert list(plain) == []

    run(main())
