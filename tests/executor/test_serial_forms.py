"""The executor without processes has the methods of a pool with their arguments; and its streams and futures."""

from __future__ import annotations

import asyncio
import inspect

import pytest

import pidfdpool
from pidfdpool import PidfdPoolExecutor, PoolOptions, SerialExecutor, TaskOptions
from pidfdpool.executor.serial_stream import SerialStream

PAIRS = {
    "executor": (SerialExecutor, PidfdPoolExecutor),
    "view": (type(SerialExecutor().options()), pidfdpool.Options),
    "stream": (SerialStream, pidfdpool.Stream),
    "future": (type(SerialExecutor().submit(abs, 1)), pidfdpool.Future),
}


def methods(kind):
    return {
        name: inspect.signature(getattr(kind, name)).parameters
        for name in dir(kind)
        if not name.startswith("_") and inspect.isroutine(getattr(kind, name))
    }


@pytest.mark.parametrize("which", PAIRS)
def test_each_method_takes_what_that_of_a_pool_takes_with_the_same_defaults(which):
    ours, theirs = map(methods, PAIRS[which])
    for name, parameters in theirs.items():
        assert [(each.name, each.kind, each.default) for each in ours[name].values()] == [
            (each.name, each.kind, each.default) for each in parameters.values()
        ], name


def test_help_lists_the_options_one_by_one():
    for kind in PAIRS["executor"] + PAIRS["view"]:
        assert set(inspect.signature(kind.options).parameters) == {"self", *TaskOptions.__annotations__}
    for kind in PAIRS["executor"]:
        assert set(PoolOptions.__annotations__) <= set(inspect.signature(kind).parameters)


# ---- streams ---------------------------------------------------------------------------------------------------


class Items:
    """An iterator of numbers up to an end. closed: how often it was closed."""

    def __init__(self, end=3, error=None):
        self.left, self.closed, self.error = iter(range(end)), 0, error

    def __iter__(self):
        return self

    def __next__(self):
        for number in self.left:
            return number
        raise self.error or StopIteration

    def close(self):
        self.closed += 1


def stream_of(items, copy=None):
    over: list = []
    return SerialStream(items, copy, lambda: over.append("over")), over


def test_a_stream_ends_once_however_often_it_is_asked_or_closed():
    items = Items()
    stream, over = stream_of(items)
    assert repr(stream) == "<SerialStream open>"
    assert iter(stream) is stream
    assert (list(stream), list(stream), over, items.closed) == ([0, 1, 2], [], ["over"], 0)
    assert repr(stream) == "<SerialStream ended>"
    stream.close()
    assert (over, items.closed) == (["over"], 0), "it has come to its end by itself"


def test_who_closes_a_stream_closes_what_it_iterates_over_and_gets_nothing_more():
    items = Items()
    stream, over = stream_of(items)
    assert next(stream) == 0
    stream.close()
    stream.close()
    assert (over, items.closed, list(stream)) == (["over"], 1, [])
    assert repr(stream) == "<SerialStream ended>"
    plain, over = stream_of(iter([1, 2]))
    plain.close()
    assert (over, list(plain)) == (["over"], []), "not everything can be closed"


def test_a_stream_that_is_let_go_of_is_closed():
    items = Items()
    stream, over = stream_of(items)
    next(stream)
    del stream
    assert (over, items.closed) == (["over"], 1)
    ended, over = stream_of(Items())
    list(ended)
    del ended
    assert over == ["over"]
    SerialStream.__new__(SerialStream).__del__()  # of one whose constructor has failed


def test_what_the_items_raise_ends_the_stream():
    for error in (LookupError("no more"), KeyboardInterrupt()):
        items = Items(1, error)
        stream, over = stream_of(items)
        assert next(stream) == 0
        with pytest.raises(type(error)):
            next(stream)
        assert (over, list(stream)) == (["over"], [])


def test_what_cannot_be_copied_is_an_error_and_the_stream_goes_on():
    def copy(item):
        if item == 1:
            raise LookupError(item)
        return [item]

    stream, over = stream_of(Items(), copy)
    assert next(stream) == [0]
    with pytest.raises(LookupError):
        next(stream)
    assert over == []
    assert list(stream) == [[2]]


def test_a_coroutine_reads_a_stream_to_its_end_and_gets_its_errors():
    async def main():
        stream, over = stream_of(Items())
        assert [item async for item in stream] == [0, 1, 2]
        assert over == ["over"]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        stream, _ = stream_of(Items(0, LookupError()))
        with pytest.raises(LookupError):
            await anext(stream)
        stream, over = stream_of(items := Items())
        async with stream as same:
            assert same is stream
        assert (over, items.closed) == (["over"], 1)

    asyncio.run(main())


def test_there_is_nothing_to_kill():
    assert stream_of(Items())[0].kill() is False
    future = SerialExecutor().submit(abs, -1)
    assert future.kill() is False
    assert future.worker is None


def test_a_stream_is_one_call_while_it_is_open_and_has_what_a_call_has():
    log: list = []
    with SerialExecutor(initializer=log.append, initargs=("initializer",)) as executor:
        first, second = executor.stream(range, 3), executor.options(timeout=3).stream(range, 0)
        assert log == ["initializer"]
        assert executor.stats() == pidfdpool.Stats(
            state="OPEN", size=executor._max_workers, submitted=2, running=2, pending=2
        )
        assert list(second) == []
        first.close()
        stats = executor.stats()
        assert (stats.submitted, stats.running, stats.pending, stats.finished) == (2, 0, 0, 2)
        with pytest.raises(ZeroDivisionError):
            executor.stream(divmod, 1, 0)
        assert executor.stats().submitted == 2
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.stream(range, 3)


# ---- futures ---------------------------------------------------------------------------------------------------


def test_the_text_of_a_future_tells_what_came_of_it():
    executor = SerialExecutor()
    assert "state=finished raised ZeroDivisionError, attempt 1 in this process>" in repr(
        executor.submit(divmod, 1, 0)
    )
    assert "state=finished returned tuple, attempt 1 in this process>" in repr(executor.submit(divmod, 1, 1))
    unmade = type(executor.submit(abs, 1))()
    assert "state=pending, attempt 0 in this process>" in repr(unmade)
    assert (unmade.attempt, unmade.started_at) == (0, None)
    assert unmade.cancel()
    assert "state=cancelled, attempt 0" in repr(unmade)
