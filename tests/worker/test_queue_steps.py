"""What the queue of a worker holds while a task runs, and which tokens it takes."""

from __future__ import annotations

import pytest

from pidfdpool.transport import tokens
from pidfdpool.transport.black_box import TAKEN_BACK_FROM
from tests.worker.test_queue import DROPPED, Loop, task


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


def test_the_call_of_a_task_is_held_by_nobody_but_who_runs_it(loop):
    """Guards: the loop had it as well, and its memory was not free while the task ran."""
    gone, seen = [], []

    class Call(bytes):
        def __del__(self):
            gone.append(1)

    def run(_number, _attempt, buffers):
        buffers.clear()
        seen.append(len(gone))

    loop._answer_usual = run
    tokens.put(loop.host, 1)
    loop._queue.append((1, 0, 1, Call(b"call")))
    assert loop._run_queued()
    assert seen == [1]


def test_tasks_that_were_taken_back_cost_one_token_together(loop):
    loop._record[TAKEN_BACK_FROM] = 1
    tokens.put(loop.host, 3)
    loop._queue.extend([task(1), task(2), task(3)])
    assert loop._run_queued()
    assert loop.sent == [(DROPPED, 3)]
    assert tokens.take_many(loop.host, 5) == 2
