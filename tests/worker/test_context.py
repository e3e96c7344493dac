"""What a task finds of itself, and what becomes of that in a chunk and behind the task."""

from __future__ import annotations

import pytest

from pidfdpool.worker import context


@pytest.fixture(autouse=True)
def told(monkeypatch):
    """Give what the worker's loop was told, in order."""
    for name in ("_task", "_call_until", "_end_chunk", "_beat", "_report"):
        monkeypatch.setattr(context, name, None)
    return []


class Text(str):
    """A reason of a class of the user's."""

    def __str__(self):
        raise AssertionError("code of the user's")


def test_outside_of_a_worker_nothing_happens():
    context.heartbeat()
    context.unhealthy("tired")
    assert context.current_task() is None
    assert context.running_task() == 0


def test_a_task_is_told_apart_by_its_number_attempt_and_deadline():
    context.enter(7, 2, 5.0)
    task = context.current_task()
    assert (task.id, task.attempt, task.deadline) == (7, 2, 5.0)
    assert context.running_task() == 7
    assert context.current_task() == task
    assert type(task).__name__ == "CurrentTask"
    assert type(task) is context.CurrentTask
    context.leave()
    assert context.current_task() is None
    assert context.running_task() == 0


def test_in_a_chunk_the_deadline_is_that_of_the_call_under_way():
    context.enter(7, 1, 5.0)
    until = iter([1.0, 2.0])
    context.enter_chunk(lambda: next(until), lambda: None)
    assert [context.current_task().deadline for _ in range(2)] == [1.0, 2.0]
    context.leave_chunk()
    assert context.current_task().deadline == 5.0
    context.enter_chunk(None, lambda: None)
    assert context.current_task().deadline == 5.0, "the task knows"


def test_a_worker_that_is_not_well_ends_its_chunk_before_it_says_so(told):
    context.install(lambda: told.append("beat"), told.append)
    context.enter_chunk(None, lambda: told.append("end of chunk"))
    context.unhealthy(Text("tired"))
    assert told == ["end of chunk", "tired"]
    assert type(told[1]) is str
    context.leave_chunk()
    context.unhealthy("again")
    assert told[2:] == ["again"]
    context.heartbeat()
    assert told[3:] == ["beat"]


@pytest.mark.parametrize("reason", [None, 5, b"tired"])
def test_a_reason_that_is_no_text_is_refused_and_nothing_is_said(told, reason):
    context.install(lambda: None, told.append)
    context.enter_chunk(None, lambda: told.append("end of chunk"))
    with pytest.raises(TypeError, match="reason must be a str"):
        context.unhealthy(reason)
    assert told == []
