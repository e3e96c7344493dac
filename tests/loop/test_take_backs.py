"""Tasks that are taken back from a worker more than once, or from one that has no black box or is closed."""

from __future__ import annotations

import os

import pytest

from pidfdpool.loop.progress import Progress
from pidfdpool.transport import black_box, tokens
from pidfdpool.transport.black_box import CLAIMED, LAST_BEGUN, TAKEN_BACK_FROM
from tests.loop.test_progress import Worker


@pytest.fixture
def worker():
    worker = Worker()
    yield worker
    worker.close()


@pytest.fixture
def bare():
    """Give the progress of a worker without a black box, and the worker's end of its tokens."""
    ours, theirs = tokens.pair()
    progress = Progress(ours)
    yield progress, theirs
    progress.close()
    os.close(theirs)


def test_while_it_is_decided_the_worker_knows_that_it_is(worker, monkeypatch):
    """Otherwise one that adds tokens might begin what is about to be taken back, and that would run twice."""
    seen, take_many = [], tokens.take_many
    monkeypatch.setattr(
        tokens, "take_many", lambda *given: seen.append(worker.words[TAKEN_BACK_FROM]) or take_many(*given)
    )
    worker.progress.put_tokens(2)
    assert worker.progress.take_back([1, 2]) == 2
    assert seen == [black_box.UNDECIDED]


def test_what_was_taken_back_before_stays_so_whatever_comes_of_the_next_time(worker):
    worker.progress.put_tokens(4)
    assert worker.begin(1)
    assert worker.progress.take_back([3, 4]) == 2
    assert worker.progress.take_back([2]) == 1
    assert worker.words[TAKEN_BACK_FROM] == 2, "the first of all"
    assert worker.progress.take_back([1]) == 0
    assert worker.words[TAKEN_BACK_FROM] == 2, "not undecided for ever"


def test_what_was_taken_back_before_stays_so_when_the_rest_has_begun_with_forged_tokens(worker):
    worker.progress.put_tokens(3)
    assert worker.progress.take_back([3]) == 1
    assert worker.begin(1)
    assert worker.begin(2)
    tokens.put(worker.tokens, 2)
    assert worker.progress.take_back([1, 2]) == 0
    assert worker.words[TAKEN_BACK_FROM] == 3


def test_a_task_that_was_begun_before_the_last_ones_takes_nothing_from_them(worker):
    worker.progress.put_tokens(3)
    assert worker.begin(1)
    assert worker.progress.take_back([2, 3]) == 2
    assert worker.words[TAKEN_BACK_FROM] == 2


def test_no_more_tasks_are_taken_back_than_was_asked_for_and_their_tokens_are_gone(worker):
    worker.progress.put_tokens(3)
    assert worker.progress.take_back([3]) == 1
    assert worker.begin(1)
    assert worker.begin(2)
    assert not worker.begin(3)


def test_without_a_black_box_the_tokens_alone_decide(bare):
    progress, theirs = bare
    progress.forget_begun()
    progress.put_tokens(3)
    assert tokens.take(theirs)
    assert progress.take_back([2, 3]) == 2
    assert progress.take_back([1]) == 0
    progress.put_tokens(2)
    assert tokens.take_many(theirs, 9) == 2, "as many as were put"


def test_more_tokens_than_tasks_are_noticed(bare):
    """A task has added them; who decides about the death does not believe them."""
    progress, _ = bare
    progress.put_tokens(9)
    assert progress.unbegun([4, 5]) == 3


def test_what_is_closed_gives_and_takes_nothing_and_leaves_the_black_box_to_its_owner(worker):
    worker.progress.put_tokens(1)
    worker.begin(1)
    worker.progress.close()
    worker.progress.put_tokens(1)
    worker.progress.forget_begun()
    assert worker.progress.take_back([1]) == 0
    assert worker.progress.last_begun() is None
    assert not tokens.take(worker.tokens)
    assert worker.words[LAST_BEGUN] == 1
    os.fstat(worker.box)


def test_one_for_which_the_worker_has_a_token_already_is_not_taken_back(worker):
    """It is about to begin that one. Somebody has added tokens, so that the host finds some for all."""
    worker.progress.put_tokens(3)
    assert worker.begin(1)
    assert tokens.take(worker.tokens)
    worker.words[CLAIMED] = 2
    tokens.put(worker.tokens, 2)
    assert worker.progress.take_back([1, 2, 3]) == 1
    assert worker.words[TAKEN_BACK_FROM] == 3
