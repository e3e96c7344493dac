"""How far a worker is, by its tokens and its black box, whatever a task does to them."""

from __future__ import annotations

import os

import pytest

from pidfdpool.loop.progress import Progress
from pidfdpool.transport import black_box, tokens
from pidfdpool.transport.black_box import ANNOUNCED, CLAIMED, LAST_BEGUN, TAKEN_BACK_FROM


class Worker:
    """The other end: what a worker's loop does with its tokens and its box, one step at a time."""

    def __init__(self):
        ours, self.tokens = tokens.pair()
        self.box = black_box.create()
        self.words = black_box.map_words(self.box)
        self.progress = Progress(ours)
        self.progress.use_black_box(self.box)

    def begin(self, number):
        """Begin a task, if there is a token for it; return whether there was."""
        if not tokens.take(self.tokens):
            return False
        self.words[CLAIMED] = self.words[LAST_BEGUN] = number
        return True

    def close(self):
        self.progress.close()
        self.words.release()
        os.close(self.tokens)
        os.close(self.box)


@pytest.fixture
def worker():
    worker = Worker()
    yield worker
    worker.close()


def test_what_has_not_begun_is_taken_back_and_the_worker_is_told_from_which_on(worker):
    worker.progress.put_tokens(4)
    assert worker.words[ANNOUNCED] == 1
    assert worker.begin(1)
    assert worker.progress.take_back([3, 4]) == 2
    assert worker.words[TAKEN_BACK_FROM] == 3
    assert worker.begin(2)
    assert not worker.begin(3)


def test_what_has_begun_meanwhile_is_not_taken_back(worker):
    worker.progress.put_tokens(3)
    for number in (1, 2):
        worker.begin(number)
    assert worker.progress.take_back([2, 3]) == 1
    assert worker.words[TAKEN_BACK_FROM] == 3


def test_when_all_has_begun_the_worker_does_not_know_of_a_task_that_was_taken_back(worker):
    worker.progress.put_tokens(1)
    worker.begin(1)
    assert worker.progress.take_back([1]) == 0
    assert worker.words[TAKEN_BACK_FROM] == black_box.UNDECIDED


@pytest.mark.parametrize(("claimed", "taken_back", "first"), [(1, 2, 2), (2, 1, 3), (3, 0, black_box.UNDECIDED)])
def test_a_task_that_adds_tokens_does_not_have_another_one_run_twice(worker, claimed, taken_back, first):
    """The host finds tokens for all three, and the worker has noted which of them it has begun."""
    worker.progress.put_tokens(3)
    for number in range(1, claimed + 1):
        worker.begin(number)
    tokens.put(worker.tokens, claimed)
    assert worker.progress.take_back([1, 2, 3]) == taken_back
    assert worker.words[TAKEN_BACK_FROM] == first


def test_the_next_tasks_are_taken_back_no_more(worker):
    worker.progress.put_tokens(2)
    worker.progress.take_back([1, 2])
    worker.progress.put_tokens(1)
    assert worker.words[TAKEN_BACK_FROM] == 0
    assert worker.begin(3)


@pytest.mark.parametrize(("begun", "unbegun"), [(None, 3), (4, 2), (5, 1), (6, 0), (99, 3)])
def test_of_a_dead_worker_its_record_tells_what_it_has_not_begun(worker, begun, unbegun):
    worker.progress.put_tokens(3)
    if begun is not None:
        worker.begin(begun)
    assert worker.progress.unbegun([4, 5, 6]) == unbegun


@pytest.mark.parametrize("begun", [0, 1, 3])
def test_without_a_black_box_the_tokens_tell_that(begun):
    ours, theirs = tokens.pair()
    progress = Progress(ours)
    progress.put_tokens(3)
    for _ in range(begun):
        tokens.take(theirs)
    assert progress.last_begun() is None
    assert progress.unbegun([4, 5, 6]) == 3 - begun
    progress.close()
    progress.close()
    assert progress.unbegun([4]) == 0
    os.close(theirs)


def test_a_task_that_is_given_again_to_the_same_worker_has_not_begun(worker):
    worker.progress.put_tokens(1)
    worker.begin(1)
    worker.progress.forget_begun()
    assert worker.progress.unbegun([1]) == 1
