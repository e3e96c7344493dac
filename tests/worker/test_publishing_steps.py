"""How a chunk is published: its clock, its room, and what becomes of a result that is not published."""

from __future__ import annotations

import os
import pickle
import weakref

import pytest

from pidfdpool.serialization import payload, picklers
from pidfdpool.transport import published
from pidfdpool.transport.published import BEGUN, STARTED
from pidfdpool.worker import chunk, chunk_publishing, context, rebuild_guard
from pidfdpool.worker.chunk_publishing import LARGE, FailedCall, Rebuilt, Unpublished
from tests.conditions import in_forked_child
from tests.worker.test_chunk_outcomes import Strange, loaded
from tests.worker.test_chunk_parts import NOW, box, call, dumped, publish  # noqa: F401  a fixture


@pytest.fixture
def clock(monkeypatch):
    """Give the time in seconds, in a list, that the chunk sees; it stands still by itself."""
    now = [50.0]
    monkeypatch.setattr(chunk_publishing, "monotonic_ns", lambda: int(now[0] * 1e9))
    return now


def test_each_call_is_timed_from_its_beginning(box, clock):  # noqa: F811
    seen = []

    def look(number):
        seen.append(chunk_publishing._ledger.words[STARTED] / 1e9)
        seen.append(context.current_task().deadline)
        clock[0] += 5.0
        return number

    NOW[:] = [look]
    *_, took = publish([0, 1], timeout=2.5)
    assert seen == [50.0, 52.5, 55.0, 57.5]
    assert took == 10.0


def test_a_chunk_without_a_time_limit_has_the_deadline_of_its_task(box):  # noqa: F811
    context.enter(7, 1, 4.5)
    seen = []
    NOW[:] = [lambda _: seen.append(context.current_task())]
    publish([0])
    assert seen == [(7, 1, 4.5)]


@pytest.mark.parametrize(("deadline", "made"), [(None, 3), (49.0, 0), (50.0, 0), (50.5, 1), (51.0, 1), (51.5, 2)])
def test_no_call_begins_from_the_deadline_on(box, clock, deadline, made):  # noqa: F811
    begun = []

    def note(number):
        begun.append(number)
        clock[0] += 1.0

    NOW[:] = [note]
    ends, *_ = publish([0, 1, 2], deadline=deadline)
    assert (len(begun), len(ends) // 4, published.calls_begun(box, 7)) == (made, made, made)


def test_a_call_that_ends_by_itself_after_a_stop_has_been_asked_for_is_the_stop(box):  # noqa: F811
    """Its error may be what the interruption has become."""

    def fail(number):
        published.halt(box, 7)
        raise LookupError("interrupted")

    NOW[:] = [fail]
    with pytest.raises(LookupError, match="interrupted"):
        publish([0, 1])
    assert chunk_publishing._ledger.words[BEGUN] == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, LookupError])
def test_whatever_else_a_call_raises_is_its_result(box, error):  # noqa: F811
    def fail(number):
        if number == 1:
            raise error("on purpose")
        return number

    NOW[:] = [fail]
    ends, data, last, failed, _ = publish([0, 1, 2])
    results = loaded(ends, data)
    assert (results[0], type(results[1]), results[2], last, failed) == (0, FailedCall, 2, None, (1,))
    assert type(payload.load_error(results[1].error)) is error


class Thing:
    """What can be referred to weakly."""


def test_no_result_is_held_while_the_next_call_is_made(box):  # noqa: F811
    alive = []

    def make(number):
        assert all(reference() is None for reference in alive)
        thing = Thing()
        alive.append(weakref.ref(thing))
        return thing

    NOW[:] = [make]
    *_, failed, _ = publish([0, 1, 2])
    assert failed == ()


def size_of(text):
    return len(pickle.dumps(text, 5))


@pytest.mark.parametrize("more", [0, 1])
def test_a_result_is_published_up_to_a_size(box, more):  # noqa: F811
    texts = ("x" * (LARGE - less) for less in range(100))
    text = next(each for each in texts if size_of(each) == LARGE + more)
    NOW[:] = [lambda number: text]
    ends, _, last, *_ = publish([0, 1])
    assert (len(ends) // 4, last is None) == ((0, False) if more else (2, True))


def test_where_there_is_no_black_box_the_first_result_is_sent_along(box, monkeypatch):  # noqa: F811
    monkeypatch.setattr(chunk, "black_box_fd", None)
    monkeypatch.setattr(chunk_publishing, "_ledger", None)
    NOW[:] = [lambda number: number]
    ends, data, last, failed, _ = publish([5, 6])
    assert (ends, data, failed) == (b"", b"", ())
    assert payload.loads([bytes(last.data)]) == 5
    chunk_publishing._ledger.close()


@pytest.mark.parametrize("fd", [1 << 20, "too short"])
def test_a_black_box_that_cannot_be_shared_has_no_room(box, monkeypatch, fd):  # noqa: F811
    short = os.memfd_create("short")
    monkeypatch.setattr(chunk, "black_box_fd", short if fd == "too short" else fd)
    ledger = chunk_publishing._shared()
    assert not ledger.has_room(ledger.limit + 1)
    ledger.close()
    os.close(short)


def test_a_chunk_for_which_there_is_no_memory_has_no_room(box, monkeypatch):  # noqa: F811
    monkeypatch.setattr(chunk_publishing._ledger, "begin", lambda _task, _count: False)
    NOW[:] = [lambda number: number]
    ends, _, last, *_ = publish([5, 6])
    assert ends == b""
    assert payload.loads([bytes(last.data)]) == 5


def test_a_ledger_is_made_once_and_closed_in_what_a_task_forks(box):  # noqa: F811
    def worker():
        chunk_publishing._ledger = None
        ledger = chunk_publishing._begin(7, 3)
        assert chunk_publishing._begin(8, 3) is ledger
        assert ledger.has_room(ledger.limit + 1)
        pid = os.fork()
        if not pid:
            try:
                ledger.words[BEGUN] = 5
            except ValueError:
                os._exit(3)
            os._exit(4)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3

    assert in_forked_child(worker) == "ok"


def test_a_copy_ends_its_chunk_and_does_not_publish(box):  # noqa: F811
    def close(number):
        chunk_publishing._ledger.close()  # as in a copy
        return number

    NOW[:] = [close]
    with pytest.raises(ValueError, match="closed|released"):
        publish([0, 1])
    chunk_publishing._ledger = published.Ledger(box)


# ---- the last result -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1])
def test_a_result_that_shares_a_resource_ends_the_chunk_and_is_rebuilt_by_the_host(box, monkeypatch, at):  # noqa: F811
    shared = []
    monkeypatch.setattr(picklers, "shared_resources", shared)

    def make(number):
        if number == at:
            shared.append("resource")
        return [number]

    NOW[:] = [make]
    ends, _, last, failed, _ = publish([0, 1, 2])
    assert (len(ends) // 4, failed) == (at, ())
    rebuilt = pickle.loads(pickle.dumps(last, 5))
    assert (type(rebuilt), rebuilt.value, rebuilt.error) == (Rebuilt, [at], None)


def test_a_last_result_without_a_resource_is_left_to_whoever_takes_it():
    data = payload.dumps([1, 2])[0]
    last = pickle.loads(pickle.dumps(Unpublished(pickle.PickleBuffer(data)), 5))
    assert type(last) is Unpublished
    assert payload.loads([bytes(last.data)]) == [1, 2]


def test_a_last_result_that_cannot_be_rebuilt_is_its_error():
    rebuilt = Rebuilt(payload.dumps(Strange(3, late=True))[0])
    assert rebuilt.value is None
    assert "argument 3" in str(rebuilt.error)


def test_the_only_call_of_a_chunk_is_timed_without_its_rebuilding(clock, monkeypatch):
    loads = payload.loads

    def slow(buffers):
        clock[0] += 100.0
        assert rebuild_guard.state.activity == rebuild_guard.CALL
        return loads(buffers)

    monkeypatch.setattr(payload, "loads", slow)

    def do(number):
        clock[0] += 3.0
        assert rebuild_guard.state.activity is None
        return number

    NOW[:] = [do]
    assert chunk_publishing.call_alone(dumped(call)[0], dumped([4]), False) == (4, 3.0)
    NOW[:] = [lambda *numbers: numbers]
    assert chunk_publishing.call_alone(dumped(max)[0], dumped([(4, 9)]), True)[0] == 9


def test_calls_of_a_published_chunk_have_their_arguments(box):  # noqa: F811
    ends, data, *_ = chunk_publishing.call_published(dumped(max)[0], dumped([(1, 2), (4, 3)]), 2, True)
    assert loaded(ends, data) == [2, 4]
