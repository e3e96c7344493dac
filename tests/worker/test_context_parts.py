"""What a worker's loop and a serial executor tell the functions for tasks, and what a copy forgets."""

from __future__ import annotations

import pytest

from pidfdpool.worker import context


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch):
    for name in ("_task", "_call_until", "_end_chunk", "_beat", "_report", "_loop", "task_of_thread"):
        monkeypatch.setattr(context, name, None)


def test_the_loop_is_known_to_streams_until_it_is_forgotten():
    context.install(lambda: None, lambda _reason: None)
    assert context.loop() is None
    context.install(lambda: None, lambda _reason: None, "the loop")
    assert context.loop() == "the loop"
    context.forget()
    assert context.loop() is None


def test_a_copy_forgets_all_of_the_worker():
    told = []
    context.install(lambda: told.append("beat"), told.append, "the loop")
    context.enter(7, 2, 5.0)
    context.enter_chunk(lambda: 1.0, lambda: told.append("end"))
    context.forget()
    context.heartbeat()
    context.unhealthy("tired")
    assert told == []
    assert (context.current_task(), context.running_task()) == (None, 0)
    context.enter(8, 1, 6.0)
    assert context.current_task() == (8, 1, 6.0), "the chunk's limit is forgotten, too"


def test_a_call_of_a_serial_executor_is_the_task_of_its_thread():
    context.task_of_thread = lambda: (3, 1, 2.5)
    assert context.current_task() == (3, 1, 2.5)
    context.enter(7, 2, 5.0)
    context.enter_chunk(lambda: 1.0, lambda: None)
    assert context.current_task() == (3, 1, 2.5), "and no limit of the worker's chunk is its own"
    context.task_of_thread = lambda: None
    assert context.current_task() == (7, 2, 1.0)


def test_the_class_of_tasks_is_made_once_and_told_by_its_module(monkeypatch):
    monkeypatch.delitem(vars(context), "CurrentTask", raising=False)
    kind = context.CurrentTask
    assert context.CurrentTask is kind
    context.enter(7, 2, 5.0)
    assert type(context.current_task()) is kind
    assert repr(context.current_task()) == "CurrentTask(id=7, attempt=2, deadline=5.0)"
    assert kind.__module__ == "pidfdpool.worker.context"
    assert kind.__doc__.startswith("The task that this worker runs.")


def test_the_class_is_made_by_whoever_needs_it_first(monkeypatch):
    monkeypatch.delitem(vars(context), "CurrentTask", raising=False)
    context.enter(7, 2, 5.0)
    assert type(context.current_task()) is context.CurrentTask


def test_what_the_module_does_not_have_is_missing_as_ever():
    with pytest.raises(AttributeError, match="module 'pidfdpool.worker.context' has no attribute 'nothing'"):
        context.nothing  # noqa: B018


def test_a_place_is_a_pid_and_a_number_of_siblings():
    place = context.WorkerPlace(5, 4)
    assert (place.pid, place.siblings) == (5, 4)


def test_a_reason_of_no_text_is_named():
    with pytest.raises(TypeError, match="reason must be a str, not 5"):
        context.unhealthy(5)
