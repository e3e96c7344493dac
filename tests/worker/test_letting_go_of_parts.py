"""What a process lets go of that a task has forked: every part of the worker that it has a copy of."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace

import pytest

from pidfdpool.transport import black_box
from pidfdpool.worker import chunk, context, process, rebuild_guard
from pidfdpool.worker.process import Worker
from tests.conditions import in_forked_child


class Copy(Worker):
    """The copy of a worker. `order` is what is let go of."""

    def __init__(self, *, logs):
        self.order = order = []

        def note(what):
            return lambda: order.append(what)

        self._logs = SimpleNamespace(stop=note("logs")) if logs else None
        self._segments = SimpleNamespace(close_in_forked_child=note("segments"))
        self._channel = SimpleNamespace(close=note("channel"))
        self._answers = SimpleNamespace(close=note("answers"))
        self.box = black_box.create()
        self._record = black_box.map_words(self.box)
        self._held_fds = [self.box, os.open("/dev/null", os.O_RDONLY)]


@pytest.mark.parametrize("logs", [True, False])
def test_it_lets_go_of_every_part_and_of_each_descriptor_once(monkeypatch, logs):
    def copy():
        made = Copy(logs=logs)
        held = list(made._held_fds)
        monkeypatch.setattr(black_box, "stop_recording_stacks", lambda: made.order.append(os.fstat(made.box).st_size))
        context.enter(7, 1, None)
        context.install(lambda: None, lambda _reason: None, made)
        chunk.black_box_fd = made.box
        rebuild_guard.state.activity = rebuild_guard.CALL
        rebuild_guard.state.unrelated_threads = {threading.get_ident()}
        made._close_in_forked_child()
        assert made.order[:-1] == [*(["logs"] if logs else []), "segments", "channel", "answers"]
        assert made.order[-1] > 0, "no stack is written any more when the black box is closed"
        assert (context.loop(), context.running_task(), chunk.black_box_fd) == (None, 0, None)
        assert rebuild_guard.state.activity is None, "a thread has forked that has nothing to do with it"
        with pytest.raises(ValueError, match="released"):
            made._record[0] = 1
        for fd in held:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)
        again = os.open("/dev/null", os.O_RDONLY)  # gets one of the numbers
        made._logs, made._record = None, memoryview(b"")
        made._close_in_forked_child()
        os.fstat(again)

    assert in_forked_child(copy) == "ok"


@pytest.mark.parametrize("part", ["stacks", "descriptor"])
def test_what_cannot_be_let_go_of_does_not_keep_the_rest(monkeypatch, part):
    def copy():
        made = Copy(logs=True)
        _, last = made._held_fds
        if part == "stacks":

            def fail():
                raise RuntimeError

            monkeypatch.setattr(process.black_box, "stop_recording_stacks", fail)
        else:
            os.close(made.box)
        made._close_in_forked_child()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(last)

    assert in_forked_child(copy) == "ok"
