"""Requests for a descriptor: who asks gets it, nobody reads another's, and what is no request does no harm."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from pidfdpool.transport import channel as channels
from pidfdpool.transport.descriptor_requests import Inbox, Requester
from tests.conditions import eventually, open_descriptors


@pytest.fixture
def inbox():
    before = open_descriptors()
    inbox = Inbox()
    yield inbox
    inbox.close()
    assert open_descriptors() == before


@pytest.fixture
def fd(inbox):
    fd = inbox.open()
    yield fd
    os.close(fd)


def answer(inbox, fd):
    reply = eventually(inbox.receive, "a request came")
    with os.fdopen(fd, "wb"):
        channels.hand_over(reply, fd)
    reply.close()


def test_who_asks_gets_the_descriptor_that_it_is_answered(inbox, fd):
    reader, writer = os.pipe()
    answering = threading.Thread(target=answer, args=(inbox, writer))
    answering.start()
    got = Requester(fd).request()
    answering.join()
    assert not os.get_inheritable(got)
    os.write(got, b"x")
    os.close(got)
    assert os.read(reader, 10) == b"x"
    assert os.read(reader, 10) == b"", "nobody else has it"
    os.close(reader)


def test_many_ask_at_once_and_each_gets_an_answer_of_its_own(inbox, fd):
    most, got = 40, []
    asking = [threading.Thread(target=lambda: got.append(Requester(fd).request())) for _ in range(most)]
    for each in asking:
        each.start()
    for number in range(most):
        answer(inbox, os.memfd_create(str(number)))
    for each in asking:
        each.join()
    names = {os.readlink(f"/proc/self/fd/{each}") for each in got}
    for each in got:
        os.close(each)
    assert len(names) == most


def test_who_is_not_answered_gets_nothing(inbox, fd):
    refusing = threading.Thread(target=lambda: eventually(inbox.receive, "a request came").close())
    refusing.start()
    assert Requester(fd).request() is None
    refusing.join()


def test_who_asks_when_nobody_is_there_any_more_gets_nothing(inbox, fd):
    requester = Requester(fd)
    inbox.close()
    assert requester.request() is None
    inbox.close()


def test_a_request_that_nobody_has_read_ends_with_the_inbox(inbox, fd):
    got = []
    asking = threading.Thread(target=lambda: got.append(Requester(fd).request()))
    asking.start()
    wait_for_a_request(inbox)
    inbox.close()
    asking.join()
    assert got == [None]


def wait_for_a_request(inbox):
    import select

    poller = select.poll()
    poller.register(inbox.fileno(), select.POLLIN)
    assert poller.poll(30_000)


def test_where_the_number_is_that_of_another_file_nothing_is_written_there(inbox):
    fd = inbox.open()
    requester = Requester(fd)
    ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
    with ours, theirs:
        os.dup2(theirs.fileno(), fd)
        assert requester.request() is None
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.recv(10)
        os.close(fd)
        assert requester.request() is None, "nor if it is that of none"


def test_what_is_no_request_is_read_and_forgotten(inbox, fd):
    """A task can write into it whatever it likes."""
    reader, writer = os.pipe()
    with socket.socket(fileno=os.dup(fd)) as end:
        end.send(b"no descriptor")
        end.send(b"")
        socket.send_fds(end, [b"no socket"], [writer])
        socket.send_fds(end, [b"two"], [end.fileno(), writer])
    os.close(writer)
    assert [inbox.receive() for _ in range(5)] == [None] * 5
    assert os.read(reader, 1) == b"", "all are closed"
    os.close(reader)


def test_it_has_no_number_before_it_is_open_and_after_it_is_closed(inbox):
    assert inbox.fileno() == -1
    inbox.close()
    os.close(inbox.open())
    assert inbox.fileno() > 2
    inbox.close()
    assert inbox.fileno() == -1
