"""What a pool's templates are made from: the way in which they start, where the initializer's arguments decide."""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize

import pytest

from pidfdpool.template.recipe import Recipe
from pidfdpool.worker.boot import PIDFD
from tests.conditions import open_descriptors


def recipe_of(*arguments, way="any"):
    initializer = (print, arguments) if arguments else None
    return Recipe(way=way, preload=(), preload_call=None, initializer=initializer)


@pytest.fixture
def pipe():
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    with ours, theirs:
        yield theirs


def test_to_find_out_the_way_leaves_nothing_open(pipe):
    """Guards: each executor kept duplicates of the pipes that it was given, and their readers saw no end of file."""
    before = open_descriptors()
    assert not recipe_of(pipe).fork
    assert open_descriptors() == before


def test_what_only_a_fork_can_share_decides_for_a_fork(pipe):
    lock = multiprocessing.get_context("fork").Lock()
    assert recipe_of(lock).fork
    assert not recipe_of(lock, way="exec").fork, "that was asked for"
    assert recipe_of(way="fork").fork
    before = open_descriptors()
    assert recipe_of(pipe, lock).fork
    assert open_descriptors() == before


def test_arguments_that_cannot_be_sent_at_all_are_for_the_start_to_complain_of():
    assert not recipe_of(x for x in ()).fork


def test_each_template_gets_descriptors_of_its_own_which_are_its_starters(pipe):
    before = open_descriptors()
    boot, fds = recipe_of(pipe).boot(PIDFD)
    assert open_descriptors().keys() - before.keys() == set(fds)
    assert len(fds) == 1
    assert not boot.forked
    for fd in fds:
        multiprocessing.connection.Connection(fd).close()
    assert open_descriptors() == before
