"""What the host's end of the template reads and writes, and how a template is ended that does not answer."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import closing

import pytest

from pidfdpool.loop.template_link import TemplateLink
from pidfdpool.pidfd import ProcessGone, capabilities
from pidfdpool.transport import channel as channels
from pidfdpool.transport import framing
from pidfdpool.transport.channel import Channel
from pidfdpool.transport.descriptor_requests import Inbox, Requester
from tests.loop.test_links import Connection, Handle, Noting, nothing


@pytest.fixture
def ends():
    ours, theirs = channels.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def template(poller, ends):
    template = TemplateLink(Connection(ends[0]), poller)
    template.watch_channel(nothing)
    yield template
    template.close()


def test_what_a_template_said_before_something_else_wrote_there_counts(template, ends, caplog):
    template.handle = Handle()
    ends[1].send(b"".join(framing.encode(framing.BOOTED)) + b"\xff" * 64)
    assert [frame.kind for frame in template.read()] == [framing.BOOTED]
    assert not template.reading
    assert "the template (pid 4711) wrote" in caplog.text
    assert template.end.lifelines == 0


def test_a_template_that_says_what_it_should_is_left_alone(template, ends, caplog):
    template.handle = Handle()
    assert template.read() == []
    ends[1].send(b"".join(framing.encode(framing.BOOTED)))
    assert [frame.kind for frame in template.read()] == [framing.BOOTED]
    assert template.reading
    assert (caplog.text, template.end.lifelines) == ("", 1)


@pytest.mark.skipif(not capabilities().usable, reason="needs pidfds")
def test_a_template_that_has_ended_already_needs_no_other_way(template):
    handle = Noting.self()
    handle.signals, handle.denied = [], False

    def gone(number, value=None, *, group=False):
        raise ProcessGone(3, "send_signal", 4711)

    handle.send_signal = gone
    template.handle = handle
    template.kill()
    template.resume()
    assert template.end.lifelines == 1


@pytest.mark.skipif(not capabilities().usable, reason="needs pidfds")
def test_a_stopped_template_is_resumed_where_the_host_can_signal_it(template):
    template.resume()
    template.handle = handle = Noting.self()
    handle.signals, handle.denied = [], False
    template.resume()
    assert handle.signals == [signal.SIGCONT]


def test_a_request_takes_its_descriptor_with_it_and_one_of_a_template_that_is_gone_is_dropped(template, ends):
    reader, writer = os.pipe()
    template.request([b"request"], writer)
    data, ancillary, *_ = ends[1].recvmsg(100, 100)
    assert data == b"request"
    os.close(int.from_bytes(ancillary[0][2], "little"))
    assert os.read(reader, 1) == b"", "nobody has the other end any more"
    os.close(reader)
    ends[1].close()
    template.request([b"request"])


@pytest.mark.parametrize("told", [False, True])
def test_the_script_is_asked_for_unless_the_template_was_told_at_its_start(template, ends, told):
    template.end.runs_script = told
    template.want_script()
    assert template.end.runs_script
    ends[1].setblocking(False)
    if told:
        with pytest.raises(BlockingIOError):
            ends[1].recv(100)
    else:
        assert ends[1].recv(100) == b"".join(framing.encode(framing.RUN_SCRIPT))


def test_requests_are_answered_by_the_pool_thread_and_a_tracker_is_asked_for_under_the_lock(
    template, poller, ends, monkeypatch
):
    lock, inbox = threading.RLock(), Inbox()
    template.end.tracker_requests = inbox
    asks = os.dup(fd := inbox.open())
    os.close(fd)

    def answer(its_inbox, start):
        assert its_inbox is inbox
        with closing(its_inbox.receive()):
            start(os.open(os.devnull, os.O_RDONLY))

    monkeypatch.setattr("pidfdpool.loop.tracker_requests.answer", answer)
    template.watch_requests(lock)
    asking = threading.Thread(target=Requester(asks).request)
    asking.start()
    poller.wait(20)
    asking.join()
    data, ancillary, *_ = ends[1].recvmsg(100, 100)
    assert data == b"".join(framing.encode(framing.START_TRACKER))
    os.close(int.from_bytes(ancillary[0][2], "little"))
    template.close()
    inbox.close()
    os.close(asks)
    assert poller._epoll.poll(0) == []


def test_the_connection_of_a_template_is_closed_with_it_and_its_copy_by_its_own_way(poller, ends):
    closed, connection = [], Connection(ends[0])
    connection.close = lambda: (closed.append("closed"), connection.channel.close())
    connection.close_in_forked_child = lambda: closed.append("copy")
    template = TemplateLink(connection, poller)
    template.watch_channel(nothing)
    template.close_in_forked_child()
    assert (closed, template.reading) == (["copy"], True)
    assert isinstance(template.channel, Channel)
    template.close()
    assert closed == ["copy", "closed"]
    assert not template.reading
