"""What a call that forks leaves to the worker: the rest of the chunk, its outcome, and all that the host is told."""

from __future__ import annotations

import os

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.worker import chunk, context
from tests import calls
from tests.conditions import eventually, is_alive


@pytest.fixture
def made(monkeypatch):
    """Return a list for the calls that are made, and leave the state of chunks as it was."""
    for name in ("_run", "_marks", "black_box_fd"):
        monkeypatch.setattr(chunk, name, None)
    return []


@pytest.mark.parametrize("count", [5, 3000, 2], ids=["a mark for each", "a mark for several", "in the last call"])
@pytest.mark.parametrize("ends", ["returns", "raises"])
def test_a_forked_copy_begins_no_further_call_and_gives_no_outcome(made, count, ends):
    """What the copy raises goes up to the worker's loop, where it exits."""

    def call(number):
        made.append(number)
        if number == 1:
            chunk.forget_in_forked_child()  # as in the process that it forks
            if ends == "raises":
                raise LookupError(number)

    with pytest.raises((LookupError, StopIteration)):
        chunk._make_calls(call, range(count), False, [])
    assert made == [0, 1]


def test_a_chunk_of_given_size_ends_in_a_forked_copy_too(made):
    def call(number):
        made.append(number)
        if number == 1:
            chunk.forget_in_forked_child()

    chunk.call_each(call, [(0,), (1,), (2,), (3,)])
    assert made == [0, 1]


def fork_and_return_twice(path, number):
    if number == 1:
        child = os.fork()
        if child:
            calls.note(path, child)
    calls.append(f"{path}.calls", number)
    return number


@pytest.mark.parametrize("options", [{}, {"timeout": 60}], ids=["no rules", "rules"])
def test_of_a_call_that_returns_twice_the_worker_goes_on_and_the_copy_exits(tmp_path, options):
    path = str(tmp_path / "child")
    with PidfdPoolExecutor(1, **options) as pool:
        results = list(pool.map(fork_and_return_twice, [path] * 5, range(5)))
        child = int((tmp_path / "child").read_text())
        eventually(lambda: not is_alive(child), "the copy has exited")
    assert results == [0, 1, 2, 3, 4]
    made = sorted(map(int, (tmp_path / "child.calls").read_text().split()))
    assert made == [0, 1, 1, 2, 3, 4], "the call that has forked is the only one that was made twice"


def test_a_task_that_returns_twice_has_one_outcome_and_the_copy_exits_silently(tmp_path, capfd):
    path = str(tmp_path / "child")
    with PidfdPoolExecutor(1) as pool:
        assert pool.submit(fork_and_return_twice, path, 1).result(20) == 1
        child = int((tmp_path / "child").read_text())
        eventually(lambda: not is_alive(child), "the copy has exited")
        assert pool.submit(calls.double, 2).result(20) == 4
    assert capfd.readouterr() == ("", "")


def fork_and_raise_twice(path):
    if not os.fork():
        calls.note(path, os.getpid())
    raise LookupError("in both")


def test_a_task_that_raises_twice_has_one_outcome_and_the_copy_exits_silently(tmp_path, capfd):
    """Guards: the copy went on to answer, where it has nothing to answer by, and printed that it could not."""
    path = tmp_path / "child"
    with PidfdPoolExecutor(1) as pool:
        assert type(pool.submit(fork_and_raise_twice, str(path)).exception(20)) is LookupError
        eventually(path.exists, "the copy has come so far")
        eventually(lambda: not is_alive(int(path.read_text())), "the copy has exited")
        assert pool.submit(calls.double, 2).result(20) == 4
    assert capfd.readouterr() == ("", "")


def test_a_forked_copy_says_nothing_for_its_parent(monkeypatch):
    told = []
    for name in ("_task", "_beat", "_report", "_call_until", "_end_chunk"):
        monkeypatch.setattr(context, name, None)
    context.install(lambda: told.append("beat"), told.append)
    context.enter(1, 1, None)
    context.enter_chunk(lambda: 1.0, lambda: told.append("end"))
    context.forget()
    context.heartbeat()
    context.unhealthy("because")
    assert (told, context.current_task(), context.running_task()) == ([], None, 0)


def ask_a_forked_copy():
    """Return what a forked copy of a worker knows of the worker's task, while that runs."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            context.heartbeat()
            context.unhealthy("said by the copy")
            os.write(writer, repr((context.current_task(), context.running_task(), chunk.black_box_fd)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as file:
        told = file.read()
    os.waitpid(child, 0)
    return os.getpid(), told, context.current_task() is not None


def test_a_forked_copy_of_a_worker_has_no_task_and_is_not_listened_to():
    with PidfdPoolExecutor(1) as pool:
        worker, told, has_task = pool.submit(ask_a_forked_copy).result(20)
        assert (told, has_task) == ("(None, 0, None)", True)
        assert pool.submit(os.getpid).result(20) == worker, "it is not replaced"
