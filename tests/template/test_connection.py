"""What the host holds of a template: everything is closed with the connection, and in a forked child, too."""

from __future__ import annotations

import multiprocessing

import pytest

from pidfdpool.template import client, recipe
from tests.conditions import eventually, in_forked_child, is_alive, open_descriptors


@pytest.fixture
def connection(way):
    """Give a connection to a template whose workers are to inherit a pipe end, and what was open before."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    with ours, theirs:
        before = open_descriptors()
        made = recipe.Recipe(
            way="fork" if way == "fork" else "exec",
            preload=(),
            preload_call=None,
            initializer=(print, (theirs,)),
        )
        connection = client.start(made)
        connection.reap_launcher()
        if connection.awaited is not None:
            client.finish(connection)
        yield connection, before
        template = connection.pid
        connection.close()
        eventually(lambda: not is_alive(template), "the template has left")


def test_what_the_host_keeps_is_closed_with_the_connection(connection):
    connection, before = connection
    kept = open_descriptors().keys() - before.keys()
    assert len(kept) == 4, "the channel, the pidfd, the requests, and the lifeline; none of what workers inherit"
    template = connection.pid
    connection.close()
    connection.close()
    assert open_descriptors() == before
    eventually(lambda: not is_alive(template), "the template has left")


def test_in_a_forked_child_the_copies_are_closed_and_the_template_lives_on(connection):
    connection, before = connection

    def child():
        connection.close_in_forked_child()
        left = {fd: name for fd, name in open_descriptors().items() if before.get(fd) != name}
        assert len(left) <= 1, left  # the pipe by which this is told

    assert in_forked_child(child) == "ok"
    assert connection.handle.alive()
    assert len(open_descriptors()) == len(before) + 4
