"""What the host's end of a worker writes, reads, watches and closes."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace

import pytest

import pidfdpool
from pidfdpool.loop import answers
from pidfdpool.loop.links import Link, WorkerLink
from pidfdpool.loop.poller import READ, WRITE
from pidfdpool.transport import black_box, framing, published, tokens
from pidfdpool.transport import channel as channels
from pidfdpool.transport.framing import ProtocolError
from pidfdpool.worker.answers import take_pipe
from tests.conditions import open_descriptors
from tests.loop.test_links import Handle, nothing


@pytest.fixture
def ends():
    """Give what makes a link's channel; the other ends are in `theirs`."""
    made = SimpleNamespace(theirs=[])

    def pair():
        ours, its_end = channels.pair()
        made.theirs.append(its_end)
        return ours

    made.pair = pair
    yield made
    for end in made.theirs:
        end.close()


@pytest.fixture
def link(poller, ends):
    ours = ends.pair()
    our_tokens, its_tokens = tokens.pair()
    os.close(its_tokens)
    link = WorkerLink(3, 7, ours, answers.attach(ours), our_tokens, poller)
    yield link
    link.close()


@pytest.fixture
def handled(link):
    handle = Handle()
    link.watch_exit(handle, nothing)
    return handle


def events_of(poller, fd):
    return poller._watches[fd].events


# ---- what is written ---------------------------------------------------------------------------------------------


def test_what_a_channel_does_not_take_is_sent_when_it_takes_more(link, poller, ends):
    """And not before that: a socket that takes more is ready all the time."""
    link.watch_channel(lambda _mask: link.flush())
    fd = link.channel.fileno()
    link.post([b"little"])
    assert events_of(poller, fd) == READ
    link.post([bytes(1 << 22)])
    assert link.channel.has_unsent
    assert events_of(poller, fd) == READ | WRITE
    link.flush()
    assert events_of(poller, fd) == READ | WRITE, "it is still full"
    end, got = ends.theirs[0], 0
    while got < len(b"little") + (1 << 22):
        got += len(end.recv(1 << 20))
        link.flush()
    assert not link.channel.has_unsent
    assert events_of(poller, fd) == READ


def test_a_dying_process_is_not_waited_for_to_take_more(link, poller, ends):
    link.watch_channel(nothing)
    link.post([bytes(1 << 22)])
    ends.theirs[0].close()
    link.flush()
    assert events_of(poller, link.channel.fileno()) == READ


def test_what_is_not_watched_yet_can_be_written_to_all_the_same(link):
    link.post([bytes(1 << 22)])
    link.flush()
    assert link.channel.has_unsent
    assert not link.reading


def test_how_a_frame_is_to_be_sent_is_said_to_the_channel(link):
    sent, real = [], link.channel
    link.channel = SimpleNamespace(send_nowait=lambda *given, **named: sent.append((given, named)), has_unsent=False)
    link.post([b"a"], 5, large=True)
    link.post([b"b"])
    link.channel = real
    assert sent == [(([b"a"], 5), {"large": True}), (([b"b"], None), {"large": False})]


def test_a_worker_that_is_to_leave_is_told_and_then_resumed_and_one_that_is_gone_is_not(link, handled, ends):
    link.leave()
    assert ends.theirs[0].recv(1) == b"\0"
    assert ends.theirs[0].recv(100) == b"".join(framing.encode(framing.EXIT))
    assert handled.signals == [(signal.SIGCONT, False)]
    ends.theirs[0].close()
    link.leave()
    assert len(handled.signals) == 1


# ---- what is read ------------------------------------------------------------------------------------------------


class Source:
    """What a link reads: `steps` has what each turn brings; what comes later is there already, or not."""

    error = None

    def __init__(self, unread, *steps):
        self.unread, self.steps, self.received = unread, list(steps), 100

    def unread_bytes(self, _request):
        return self.unread


@pytest.mark.parametrize(
    ("unread", "steps", "turns"),
    [
        (0, [5, 5], 1),
        (10, [5, 5, 5], 2),
        (10, [4, 5, 5, 5], 3),
        (10, [5, 0, 5], 2),
        (10, [10, 5], 1),
        (10, [5, "end", 5], 2),
    ],
    ids=["nothing", "all", "more", "no more comes", "at once", "the end"],
)
def test_all_is_read_that_was_there_and_what_comes_later_is_not_waited_for(link, unread, steps, turns):
    link.watch_channel(nothing)
    own, link.source = link.source, Source(unread, *steps)
    served = []

    def serve():
        step = link.source.steps.pop(0)
        served.append(step)
        if step == "end":
            link.stop_reading()
            step = 1
        link.source.received += step

    link.read_all(serve)
    link.source = own
    assert len(served) == turns


def test_what_is_read_no_more_is_not_served(link):
    link.read_all(lambda: pytest.fail("there is nothing to read"))


@pytest.mark.parametrize(
    ("error", "reading"), [(BlockingIOError(), True), (EOFError(), False), (ConnectionResetError(), False)], ids=repr
)
def test_the_end_is_an_end_and_nothing_else_is(link, poller, error, reading):
    link.watch_channel(nothing)
    link.watch_pipe(nothing)
    watched = len(poller._watches)

    def receive():
        raise error

    assert link.read(receive) == []
    assert link.reading is reading
    assert len(poller._watches) == watched - (0 if reading else 2)


def test_what_somebody_else_wrote_is_for_the_caller_to_judge(link):
    link.watch_channel(nothing)

    def receive():
        raise ProtocolError("nonsense")

    with pytest.raises(ProtocolError):
        link.read(receive)
    assert link.reading


def test_what_a_worker_answers_comes_from_its_pipe_and_with_its_cookie(link, ends):
    pipe = take_pipe(ends.theirs[0])
    cookie = framing.cookie_bytes(link.cookie)
    assert link.cookie
    os.write(pipe, cookie + b"".join(framing.encode(framing.READY)))
    assert [frame.kind for frame in link.read()] == [framing.READY]
    assert list(link.read(lambda: ["another way"])) == ["another way"]
    os.write(pipe, b"".join(framing.encode(framing.READY)) * 2)
    with pytest.raises(ProtocolError):
        link.read()
    os.close(pipe)


# ---- who serves it -----------------------------------------------------------------------------------------------


def test_a_leader_reads_what_workers_answer_and_the_pool_thread_sees_them_end(link, poller, handled):
    link.watch_channel(nothing)
    link.watch_pipe(nothing)
    for fd, inner in ((link.channel.fileno(), True), (link.answers.fileno(), True), (handled.fileno(), False)):
        watch = poller._watches[fd]
        assert watch.epoll is (poller._inner if inner else poller._epoll)
        assert watch.events == READ
    plain = Link(link.channel, poller)
    poller.forget(poller._watches[link.channel.fileno()])
    plain.watch_channel(nothing)
    assert poller._watches[link.channel.fileno()].epoll is poller._epoll, "a template's is the pool thread's"
    plain.stop_reading()


def test_each_part_is_watched_no_more_when_that_is_said(link, poller, handled):
    link.watch_channel(nothing)
    link.watch_pipe(nothing)
    link.stop_watching_exit()
    assert handled.fileno() not in poller._watches
    assert link.reading
    link.stop_reading()
    assert not link.reading
    assert {link.channel.fileno(), link.answers.fileno()}.isdisjoint(poller._watches)


def test_a_worker_is_called_by_its_place_until_its_process_is_known(link):
    assert link.name == (3, 7, None)
    assert (link.slot, link.generation, link.ready_early) == (3, 7, False)
    assert (link.handle, link.status, link.ended_at, link.usage, link.log_levels) == (None,) * 5
    link.watch_exit(handle := Handle(), nothing)
    assert link.name == (3, 7, 4711)
    assert handle.signals == []


# ---- signals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("group", [True, False])
def test_whoever_is_told_to_end_goes_on_for_that_also_where_no_group_can_be_named(link, handled, number, group):
    sent = []

    def send(number, group_too=False, *, group=False):
        if group and not can_group:
            raise OSError("before Linux 6.9")
        sent.append((number, group))

    can_group, handled.send_signal = group, send
    link.signal(number)
    expected = [(number, group)]
    assert sent == expected + [(signal.SIGCONT, False)] * (number == signal.SIGTERM)


def test_one_that_has_ended_is_not_signalled_again(link, handled):
    sent = []

    def send(number, group=False):
        sent.append(number)
        raise ProcessLookupError

    handled.send_signal = send
    link.signal(signal.SIGTERM)
    assert sent == [signal.SIGTERM]


def test_a_stack_is_asked_for_of_the_process_alone(link):
    link.request_stack()
    link.resume()
    link.watch_exit(handle := Handle(), nothing)
    link.request_stack()
    assert handle.signals == [(black_box.STACK_SIGNAL, False)]


# ---- what is known of it -----------------------------------------------------------------------------------------


def test_without_a_black_box_nothing_is_known_of_a_worker_and_nothing_asked_of_it(link):
    link.allow_calls(5)
    assert link.black_box is None
    assert (link.last_heartbeat(), link.calls_begun(1), link.published(), link.call_started(1, 0.0)) == (None,) * 4


def test_a_black_box_tells_of_heartbeats_calls_and_what_was_published(link):
    box = black_box.create()
    link.set_black_box(box)
    assert link.black_box == box
    ledger = published.Ledger(box)
    assert link.last_heartbeat() is None
    black_box.record_heartbeat(box, 12.5)
    assert link.last_heartbeat() == 12.5
    now = time.monotonic_ns()
    ledger.words[published.TASK], ledger.words[published.STARTED], ledger.words[published.BEGUN] = 9, now, 1
    assert link.calls_begun(9) == 1
    assert link.published().task == 9
    assert link.call_started(9, 0.0) == pytest.approx(now / 1e9)
    assert ledger.words[published.HALTED] == 0
    assert link.call_started(9, now / 1e9 + 5) == pytest.approx(now / 1e9)
    assert ledger.words[published.HALTED] == 9
    link.allow_calls(4)
    assert ledger.words[published.ALLOWED] == 4
    assert os.pread(box, 8, 8 * black_box.ANNOUNCED) != bytes(8), "its progress is told there, too"
    for view in (ledger.words, ledger.ends):
        view.release()


def test_what_cannot_be_found_out_of_a_process_is_not_known(link, handled):
    def fail():
        raise OSError

    handled.pid, handled.alive = os.getpid(), lambda: True
    memory, seconds = link.usage_now()
    assert memory > 0
    assert seconds is not None
    assert link.memory() > 0
    handled.alive = fail
    assert (link.usage_now(), link.memory()) == ((None, None), 0)
    handled.pid, handled.alive = -1, lambda: True
    assert link.memory() == 0


def test_a_dead_worker_that_wrote_no_stack_and_published_nothing_has_no_evidence_of_that(link):
    box = black_box.create()
    link.set_black_box(box)
    evidence = link.evidence()
    assert not evidence.stack
    assert (evidence.peak_rss, evidence.cpu_time, evidence.stderr, evidence.marks) == (None, None, (), 0)


def test_the_stack_that_a_worker_wrote_is_told_as_a_user_wants_to_read_it(link):
    box = black_box.create()
    link.set_black_box(box)
    own = f'  File "{os.path.dirname(pidfdpool.__file__)}/worker/process.py", line 9 in run\n'
    text = 'Stack (most recent call first):\n  File "work.py", line 5 in work\n' + own
    os.pwrite(box, text.encode(), black_box.STACKS_OFFSET)
    ledger = published.Ledger(box)
    ledger.words[published.TASK], ledger.words[published.BEGUN] = 9, 1
    evidence = link.evidence()
    assert 'File "work.py", line 5 in work' in evidence.stack
    assert "worker/process.py" not in evidence.stack
    assert evidence.published.task == 9
    for view in (ledger.words, ledger.ends):
        view.release()


# ---- ends --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forked", [False, True])
def test_everything_that_a_worker_has_cost_is_closed_and_in_a_forked_child_nothing_unregistered(poller, ends, forked):
    own = ends.pair()
    before = open_descriptors()
    ours, its_end = channels.pair()
    our_tokens, its_tokens = tokens.pair()
    link = WorkerLink(3, 7, ours, answers.attach(ours), our_tokens, poller)
    stderr, writer = os.pipe()
    os.close(its_tokens)
    link.set_black_box(black_box.create())
    link.set_stderr(stderr)
    closed, handle = [], Handle()
    handle.close_in_forked_child = lambda: closed.append("copy")
    link.watch_exit(handle, nothing)
    link.watch_channel(nothing)
    link.watch_pipe(nothing)
    watched = dict(poller._watches)
    for _ in range(2):
        link.close_in_forked_child() if forked else link.close()
    assert closed == ["copy"] * (2 if forked else 0)
    assert link.black_box is None
    handle.close()
    its_end.close()
    os.close(writer)
    assert open_descriptors() == before
    if forked:
        assert poller._watches == watched
        for fd in watched.keys() - {poller._wake_fd, poller._led_fd, poller.inner_fd}:
            del poller._watches[fd]
    else:
        assert len(poller._watches) == 3
    own.close()
