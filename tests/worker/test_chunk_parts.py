"""What a chunk leaves behind when it is over, and when it makes no further call. In this process, not in a worker."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress

import pytest

from pidfdpool.process import native
from pidfdpool.serialization import payload
from pidfdpool.transport import black_box, published
from pidfdpool.transport.published import BEGUN, HALTED
from pidfdpool.worker import chunk, chunk_publishing, context, rebuild_guard, script_module, tracebacks


@pytest.fixture
def box(monkeypatch):
    """Give the black box of a worker that this process is for a while."""
    fd = black_box.create()
    for name, value in (
        ("_run", None),
        ("_marks", None),
        ("black_box_fd", fd),
        ("shared_main", payload.ReceivedMain()),
    ):
        monkeypatch.setattr(chunk, name, value)
    for name in ("_task", "_call_until", "_end_chunk", "_beat", "_report"):
        monkeypatch.setattr(context, name, None)
    ledger = published.Ledger(fd)
    monkeypatch.setattr(chunk_publishing, "_ledger", ledger)
    context.enter(7, 1, None)
    yield fd
    ledger.close()
    if chunk._marks is not None:
        chunk._marks.close()
    os.close(fd)


def dumped(value):
    return payload.dumps(value)


NOW: list = []  # what the calls of a test do


def call(number):
    return NOW[0](number)


def publish(numbers, **options):
    return chunk_publishing.call_published(dumped(call)[0], dumped(numbers), len(numbers), False, **options)


def raise_at_2(number):
    if number == 2:
        raise LookupError(number)
    return number


@pytest.mark.parametrize("do", [lambda number: number, raise_at_2], ids=["results", "a failure"])
def test_no_mark_is_left_of_a_chunk_that_is_over(box, do):
    """Or a death of the next task would be told of a call that it has not."""
    seen = []
    NOW[:] = [lambda number: seen.append(black_box.count_marks(box)) or do(number)]
    chunk.call_all(dumped(call)[0], dumped([0, 1, 2, 3]), False)
    assert seen == [1, 2, 3, 4]
    assert black_box.count_marks(box) == 0
    if do is not raise_at_2:
        chunk.call_each(call, [(0,), (1,)])
        assert seen[4:] == [1, 2]
        assert black_box.count_marks(box) == 0


def test_each_call_of_a_chunk_is_found_begun_and_after_it_the_task_is_as_before(box):
    begun = []
    NOW[:] = [lambda number: begun.append((published.calls_begun(box, 7), context.current_task().deadline)) or number]
    publish([0, 1, 2], timeout=100.0)
    assert [count for count, _ in begun] == [1, 2, 3]
    assert all(deadline > 0 for _, deadline in begun)
    assert context.current_task() == (7, 1, None)
    context.unhealthy("the chunk is over, and has nothing to end")


def test_a_chunk_whose_call_is_interrupted_leaves_the_task_as_before_too(box):
    def halt(number):
        published.halt(box, 7)
        raise KeyboardInterrupt

    NOW[:] = [halt]
    with pytest.raises(KeyboardInterrupt):
        publish([0, 1, 2], timeout=100.0)
    assert context.current_task() == (7, 1, None)
    assert context._end_chunk is None


def test_no_call_begins_after_the_host_has_said_so(box):
    made = []

    def note(number):
        made.append(number)
        if number == 1:
            published.halt(box, 7)
        return number

    NOW[:] = [note]
    ends, *_ = publish([0, 1, 2, 3])
    assert (made, len(ends) // 4) == ([0, 1], 2)
    assert chunk_publishing._ledger.words[BEGUN] == 2, "the third has not begun"
    assert chunk_publishing._ledger.words[HALTED] == 7


def test_what_the_host_has_said_of_another_task_does_not_matter(box):
    published.halt(box, 6)
    NOW[:] = [lambda number: number]
    ends, *_ = publish([0, 1])
    assert len(ends) // 4 == 2


def test_no_more_calls_begin_than_are_allowed(box):
    published.allow(box, 2)
    NOW[:] = [lambda number: number]
    ends, *_ = publish([0, 1, 2])
    assert len(ends) // 4 == 2
    published.allow(box, 0)
    ends, *_ = publish([0, 1, 2])
    assert len(ends) // 4 == 3


@pytest.mark.parametrize("written", [-1, 3, 1 << 62, -(1 << 63)])
def test_a_number_of_allowed_calls_that_cannot_be_true_allows_all(box, written):
    """Guards: a task that had written into the black box made a later map of somebody else's fail."""
    published.allow(box, written)
    NOW[:] = [lambda number: number]
    ends, *_ = publish([0, 1, 2])
    assert len(ends) // 4 == 3


@pytest.mark.parametrize("long", [1e300, 1e308])
def test_a_deadline_may_be_later_than_nanoseconds_can_tell(box, long):
    NOW[:] = [lambda number: number]
    ends, *_ = publish([0, 1, 2], deadline=long)
    assert len(ends) // 4 == 3


def test_no_call_begins_after_the_deadline(box, monkeypatch):
    clock = iter([5, 6, 7, 10, 11, 12])  # before the chunk, before each call, after the chunk
    monkeypatch.setattr(chunk_publishing, "monotonic_ns", lambda: next(clock) * 10**9)
    NOW[:] = [lambda number: number]
    ends, *_ = publish([0, 1, 2, 3], deadline=10.0)
    assert len(ends) // 4 == 2


def test_a_worker_that_is_to_be_replaced_ends_its_chunk_with_the_call_that_says_so(box):
    reasons, made = [], []
    context.install(lambda: None, reasons.append)

    def note(number):
        made.append(number)
        if number == 1:
            context.unhealthy("tired")
        return number

    NOW[:] = [note]
    ends, _, last, failed, _ = publish([0, 1, 2, 3])
    assert (made, reasons, failed) == ([0, 1], ["tired"], ())
    assert len(ends) // 4 == 1
    assert payload.loads([bytes(last.data)]) == 1


# ---- the rest ------------------------------------------------------------------------------------------------


def test_a_rebuilding_within_another_one_gives_the_outer_one_back():
    state = rebuild_guard.state
    before = state.activity, state.unrelated_threads
    with rebuild_guard.during("outer"):
        outer = state.unrelated_threads = {1}
        with suppress(LookupError), rebuild_guard.during("inner"):
            assert state.activity == "inner"
            raise LookupError
        assert (state.activity, state.unrelated_threads) == ("outer", outer)
        with pytest.raises(RuntimeError, match="while outer"):
            rebuild_guard.check()
    assert (state.activity, state.unrelated_threads) == before
    rebuild_guard.check()


def test_a_thread_that_was_there_before_the_rebuilding_may_start_a_pool():
    go, over, leave, refused = threading.Event(), threading.Event(), threading.Event(), []

    def start():
        go.wait(20)
        try:
            rebuild_guard.check()
        except RuntimeError as error:
            refused.append(error)
        over.set()
        leave.wait(20)  # so that no other thread gets its ident

    threads = [threading.Thread(target=start) for _ in range(2)]
    threads[0].start()
    with rebuild_guard.during("outer"):
        go.set()
        assert over.wait(20)
        assert refused == []
        over.clear()
        threads[1].start()  # it belongs to the import
        assert over.wait(20)
    leave.set()
    for thread in threads:
        thread.join()
    assert len(refused) == 1


def test_an_error_that_is_on_its_way_to_the_host_holds_no_frame():
    def fail():
        held = bytearray(10)
        raise LookupError(len(held)) from ValueError("cause")

    try:
        fail()
    except LookupError as caught:
        error = caught
        assert error.__traceback__ is not None
    assert isinstance(payload.load_error(tracebacks.dump_error(error, None)), LookupError)
    assert error.__traceback__ is None
    assert error.__cause__.__traceback__ is None


def test_workers_get_the_handlers_that_the_start_has_set_but_for_ctrl_c(monkeypatch):
    def handler(*_):
        pass

    done = {}
    monkeypatch.setattr(
        script_module, "_worker_handlers", {int(signal.SIGUSR1): handler, int(signal.SIGINT): handler}
    )
    monkeypatch.setattr(native, "set_signal", done.__setitem__)
    script_module.set_signals()
    assert done == {signal.SIGUSR1: handler}
