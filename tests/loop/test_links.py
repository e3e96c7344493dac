"""The host's ends of a worker: what was asked for before the worker has a name."""

from __future__ import annotations

import errno
import os
import signal
from types import SimpleNamespace

import pytest

from pidfdpool.loop import answers, process_usage
from pidfdpool.loop.death_reports import Evidence
from pidfdpool.loop.links import ORPHAN_GRACE, REPORT_GRACE, WorkerLink
from pidfdpool.loop.poller import WRITE
from pidfdpool.loop.segment_account import ResultLease, SegmentAccount, TaskSegments
from pidfdpool.loop.template_link import TemplateLink
from pidfdpool.pidfd import Pidfd, PidfdDenied, capabilities
from pidfdpool.transport import black_box, framing, published, tokens
from pidfdpool.transport import channel as channels
from pidfdpool.transport.channel import Channel


class Handle:
    """A process of which all that is asked is kept."""

    pid = 4711

    def __init__(self):
        self.signals = []
        self._fd, self._other = os.pipe()

    def fileno(self):
        return self._fd

    def send_signal(self, number, group=False):
        self.signals.append((number, group))

    def close(self):
        if self._fd >= 0:
            os.close(self._fd)
            os.close(self._other)
            self._fd = -1


@pytest.fixture
def theirs():
    """Give the worker's end of the channel."""
    ends = []
    yield ends
    for end in ends:
        end.close()


@pytest.fixture
def link(poller, theirs):
    ours, its_end = channels.pair()
    theirs.append(its_end)
    our_tokens, its_tokens = tokens.pair()
    os.close(its_tokens)
    link = WorkerLink(0, 1, ours, answers.attach(ours), our_tokens, poller)
    yield link
    link.close()
    link.close()


def nothing(_mask):
    pass


def test_a_signal_that_was_asked_for_before_the_worker_is_known_is_sent_when_it_is(link):
    link.watch_channel(nothing)
    link.signal(15)
    link.signal(9)
    handle = Handle()
    link.watch_exit(handle, nothing)
    assert handle.signals == [(9, True)]
    assert link.name == (0, 1, 4711)


def test_what_is_closed_is_watched_no_more(link, poller):
    """Guards: epoll goes on reporting a descriptor of which a forked child has a copy, and its number is reused."""
    before = set(poller._watches)
    link.watch_channel(nothing)
    link.watch_pipe(nothing)
    link.watch_exit(Handle(), nothing)
    stderr, writer = os.pipe()
    link.set_stderr(stderr)
    assert len(poller._watches) == len(before) + 4
    link.close()
    assert set(poller._watches) == before
    assert (link.channel.fileno(), link.answers.fileno()) == (-1, -1), "and not left to the collector"
    os.close(writer)


def test_where_a_group_cannot_be_signalled_the_worker_is_and_one_that_has_ended_is_not(link):
    handle = Handle()
    link.watch_exit(handle, nothing)

    def refuse(number, group=False):
        if group:
            raise OSError("before Linux 6.9")
        handle.signals.append(number)

    handle.send_signal = refuse
    link.signal(9)
    assert handle.signals == [9]

    def ended(number, group=False):
        handle.signals.append((number, group))
        raise ProcessLookupError

    handle.send_signal, handle.signals = ended, []
    link.signal(15)
    assert handle.signals == [(15, True)]


def test_a_worker_that_is_to_end_is_resumed_if_somebody_has_stopped_it(link, theirs):
    handle = Handle()
    link.watch_exit(handle, nothing)
    link.signal(15)
    assert handle.signals == [(15, True), (signal.SIGCONT, False)]
    handle.signals.clear()
    link.signal(9)
    assert handle.signals == [(9, True)], "that ends a stopped one, too"
    handle.signals.clear()
    link.leave()
    assert handle.signals == [(signal.SIGCONT, False)]
    assert theirs[0].recv(100)
    theirs[0].close()
    link.leave()


@pytest.mark.parametrize(
    "error", [BrokenPipeError(), ConnectionResetError(), OSError(errno.ENOBUFS, "no room")], ids=repr
)
def test_a_worker_that_is_dying_is_no_error_whatever_the_kernel_says_of_it(link, error):
    """Guards: one that had not read everything is told of by another error than one that had."""

    class Refusing:
        has_unsent = False

        def send_nowait(self, *_, **__):
            raise error

        def flush(self):
            raise error

    real, link.channel = link.channel, Refusing()
    handle = Handle()
    link.watch_exit(handle, nothing)

    def refuse(*_, **__):
        raise error

    handle.send_signal = refuse
    link.leave()
    link.flush()
    link.resume()
    link.request_stack()
    link.signal(9)
    link.channel = real


def test_a_worker_that_has_closed_its_end_is_read_no_more(link, theirs):
    link.watch_channel(nothing)
    link.watch_pipe(nothing)
    assert link.reading
    assert link.read() == []
    assert link.reading, "nothing has come"
    theirs[0].close()
    assert link.read(link.answers.receive_when_channel_is_ready) == []
    assert not link.reading


def test_the_time_until_a_report_is_overdue_begins_when_the_worker_has_ended(link):
    link.ended_at = 100.0
    assert link.overdue_at == 100.0 + REPORT_GRACE
    link.report_within = ORPHAN_GRACE
    assert link.overdue_at == 100.0 + ORPHAN_GRACE


def test_what_is_read_by_a_pid_counts_if_the_worker_is_still_alive_behind_it(link, monkeypatch):
    monkeypatch.setattr(process_usage, "resident", lambda pid, segments=0: 1000 - segments)
    monkeypatch.setattr(process_usage, "processor_time", lambda pid: 0.5)
    assert (link.usage_now(), link.memory()) == ((None, None), 0)
    handle = Handle()
    link.watch_exit(handle, nothing)
    handle.alive = lambda: True
    link.account.mapped_sizes[1] = 300
    assert (link.usage_now(), link.memory()) == ((1000, 0.5), 700)
    handle.alive = lambda: False
    assert (link.usage_now(), link.memory()) == ((None, None), 0)


def test_a_peak_is_not_below_what_was_measured(link, monkeypatch):
    """Guards: a worker that was killed for its memory had "peaked" a few pages below the limit."""
    sizes = iter([700, 900, 800])
    monkeypatch.setattr(process_usage, "resident", lambda pid, segments=0: next(sizes))
    handle = Handle()
    link.watch_exit(handle, nothing)
    handle.alive = lambda: True
    assert [link.memory() for _ in range(3)] == [700, 900, 800]
    assert link.evidence().peak_rss is None, "the peak is not known"
    link.usage = 899, 0.5
    assert link.evidence().peak_rss == 900
    link.usage = 901, 0.5
    assert link.evidence().peak_rss == 901


def test_a_call_that_has_run_for_too_long_is_the_last_one_unless_another_has_begun_meanwhile(link, monkeypatch):
    assert link.call_started(7, 5.0) is None, "there is no black box yet"
    link.set_black_box(black_box.create())
    for times, halted, told in (
        ([6.0], [], 6.0),
        ([5.0, 5.0], [7], 5.0),
        ([4.0, 6.0], [7], 6.0),
        ([None, 3.0], [7], 3.0),
    ):
        seen, clock = [], iter(times)
        monkeypatch.setattr(published, "call_started", lambda _box, clock=clock: next(clock))
        monkeypatch.setattr(published, "halt", lambda _box, task, seen=seen: seen.append(task))
        assert (link.call_started(7, 5.0), seen) == (told, halted)


class Arena:
    """Takes what is given back."""

    def __init__(self):
        self.back = []

    def release(self, segment):
        self.back.append(segment)


def test_what_a_dead_worker_was_lent_is_not_used_again():
    """A process that its task started may have it mapped."""
    arena, account = Arena(), SegmentAccount()
    call, loan = SimpleNamespace(not_reusable=False), SimpleNamespace(not_reusable=False)
    account.leased[1] = TaskSegments(call, ResultLease(arena, loan), None)
    account.close()
    assert (call.not_reusable, loan.not_reusable) == (True, True)
    assert arena.back == [loan]


def test_a_channel_is_not_waited_for_to_take_more_when_a_later_post_has_sent_all(link, poller, theirs):
    """Otherwise the pool's thread would go round and round: a channel with nothing in it can always take more."""
    flushed = []

    def serve(mask):
        flushed.append(mask)
        link.flush()

    link.watch_channel(serve)
    link.post([bytes(1 << 22)])  # more than the kernel takes
    theirs[0].setblocking(False)
    while link.channel.has_unsent:
        while True:
            try:
                theirs[0].recv(1 << 20)
            except BlockingIOError:
                break
        link.post([b"more"])
    poller.wait(0)
    poller.wait(0)
    assert flushed == [WRITE]


def test_of_a_dead_worker_everything_is_found_that_nobody_has_looked_at_before(link):
    """Guards: the last lines of its standard error, such as a crash, were missing where it ended at once."""
    assert link.evidence() == Evidence()
    stderr, writer = os.pipe()
    link.set_stderr(stderr)
    box = black_box.create()
    link.set_black_box(box)
    with black_box.map_marks(box) as marks:
        black_box.clear_marks(marks)
        marks.write(b"\1\1")
    os.write(writer, b"the last line")
    os.close(writer)
    link.usage = 1 << 20, 0.5
    evidence = link.evidence()
    assert (evidence.stderr, evidence.marks) == (("the last line",), 2)
    assert (evidence.peak_rss, evidence.cpu_time) == (1 << 20, 0.5)


def test_a_standard_error_that_is_at_its_end_is_watched_no_more(link, poller):
    stderr, writer = os.pipe()
    link.set_stderr(stderr)
    os.close(writer)
    poller.wait(20)
    assert poller._epoll.poll(0) == []


# ---- the template ------------------------------------------------------------------------------------------------


class Connection:
    """Stands for the host's connection to a template."""

    pid, runs_script = 4711, False

    def __init__(self, end):
        self.channel = Channel(end)
        self.lifelines = 1

    def close_lifeline(self):
        self.lifelines -= 1

    def close(self):
        self.channel.close()


@pytest.fixture
def template(poller, theirs):
    ours, its_end = channels.pair()
    theirs.append(its_end)
    template = TemplateLink(Connection(ours), poller)
    template.watch_channel(nothing)
    yield template
    template.close()


class Noting(Pidfd):
    """A handle of a process that gets no signal from it."""

    def send_signal(self, number, value=None, *, group=False):
        self.signals.append(number)
        if self.denied:
            raise PidfdDenied(errno.EPERM, "send_signal", self.pid)


@pytest.fixture
def handle():
    handle = Noting.self()
    handle.signals, handle.denied = [], False
    yield handle
    handle.close()


@pytest.mark.skipif(not capabilities().usable, reason="needs pidfds")
@pytest.mark.parametrize("denied", [False, True])
def test_a_template_that_has_closed_its_channel_is_killed_in_whatever_way_there_is(template, theirs, handle, denied):
    template.handle, handle.denied = handle, denied
    theirs[0].close()
    assert template.read() == []
    assert not template.reading
    assert handle.signals == [signal.SIGKILL]
    assert template.end.lifelines == (0 if denied else 1)


def test_without_pidfds_the_channel_and_the_lifeline_tell_a_template_to_end(template, theirs):
    template.handle = Handle()
    template.kill()
    assert theirs[0].recv(1) == b""
    assert (template.handle.signals, template.end.lifelines) == ([], 0)
    template.resume()
    assert template.handle.signals == [], "the next request does"


def test_what_else_writes_into_a_templates_channel_is_noticed_once(template, theirs, caplog):
    template.handle = Handle()
    theirs[0].send(b"nonsense" * 10)
    template.read()
    template.read()
    assert caplog.text.count("it is killed") == 1
    assert template.end.lifelines < 1


def test_the_script_is_asked_for_once(template, theirs):
    template.want_script()
    template.want_script()
    assert theirs[0].recv(1000) == b"".join(framing.encode(framing.RUN_SCRIPT))
    theirs[0].close()
    template.request(framing.encode(framing.STOP))
