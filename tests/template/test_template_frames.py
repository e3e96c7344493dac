"""The template and its workers as the host sees them: what they say, frame by frame, and which descriptors come."""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import threading
import time
from contextlib import suppress
from functools import partial

import pytest

import pidfdpool
from pidfdpool.loop.answers import Answers, attach
from pidfdpool.serialization import payload
from pidfdpool.template import client, recipe
from pidfdpool.transport import black_box, framing, tokens
from pidfdpool.transport import channel as channels
from tests import calls
from tests.conditions import children, eventually, is_alive, is_zombie
from tests.template.test_descendants import kill, start

WITH_DESCRIPTOR = (framing.BLACK_BOX, framing.STDERR, framing.SPAWNED)


class WorkerEnd:
    """The host's ends of one worker, which are read like one channel."""

    def __init__(self, ours):
        self._answers = Answers(attach(ours), channels.Channel(ours), b"")
        self._channel = self._answers._channel
        self.send_nowait = self._channel.send_nowait

    def fileno(self):
        return (self._channel if self._answers._awaits_channel else self._answers).fileno()

    def receive_nowait(self):
        return [framing.made(frame) for frame in self._answers.receive_nowait()]

    def close(self):
        self._answers.close()
        self._channel.close()


class Bench:
    """A template and the host's half of its channel, without the host."""

    def __init__(self, way, **options):
        options = {"preload": (), "preload_call": None, "initializer": None, **options}
        self.end = client.start(recipe.Recipe(way="fork" if way == "fork" else "exec", **options))
        self.end.reap_launcher()
        if self.end.awaited is not None:
            client.finish(self.end)
        self.frames = list(self.end.early_frames)
        self.opened = {}
        self.channels = []
        self.all_tokens = []

    @property
    def pid(self):
        return self.end.handle.pid

    def next(self):
        """Return the next frame's (kind, frame) of the template's; its descriptor is in `opened`."""
        frame = self._next(self.end.channel, self.frames)
        if frame.kind in WITH_DESCRIPTOR:
            self.opened[frame.kind] = self.end.channel.next_descriptor()
        return frame

    @staticmethod
    def _next(channel, frames):
        while not frames:
            assert select.select([channel.fileno()], [], [], 20)[0], "a frame"
            frames += channel.receive_nowait()
        return frames.pop(0)

    def spawn(self, generation=1):
        """Have a worker forked; return the host's end of its channel."""
        ours, theirs = channels.pair()
        end = WorkerEnd(ours)
        self.tokens, its_tokens = tokens.pair()
        self.all_tokens.append(self.tokens)
        self.end.channel.send_nowait(framing.encode(framing.TOKENS, 0, generation), its_tokens)
        self.end.channel.send_nowait(framing.encode(framing.SPAWN, 0, generation), theirs.detach())
        self.channels.append(end)
        return self.channels[-1]

    def call(self, channel, function, *arguments, flags=0, attempt=1, deadline=None):
        """Run a task; return (the answer's frame, its result, what was said before)."""
        buffers = payload.dumps((function, arguments, {}))
        if deadline is not None:
            flags |= framing.HAS_DEADLINE
            buffers = [*buffers, framing.DEADLINE.pack(deadline)]
        tokens.put(self.tokens, 1)
        channel.send_nowait(framing.encode(framing.TASK, flags, attempt, 7, buffers))
        said, frames = [], []
        while (frame := self._next(channel, frames)).kind not in (framing.RESULT, framing.ERROR):
            said.append(frame)
        assert frame.kind == framing.RESULT, payload.load_error(frame.buffers)
        return frame, payload.loads(frame.buffers), said

    def said_to_the_end(self, channel):
        """Return the kinds of all frames that a worker writes until it ends."""
        kinds, frames = set(), []
        with suppress(EOFError):
            while True:
                kinds.add(self._next(channel, frames).kind)
        return kinds

    def close(self):
        self.end.channel.send_nowait(framing.encode(framing.STOP))
        assert self.end.handle.wait(10)
        for channel in self.channels:
            channel.close()
        for fd in [*self.opened.values(), *self.all_tokens]:
            os.close(fd)
        self.end.close()


@pytest.fixture
def bench(way):
    made = []

    def make(**options):
        made.append(Bench(way, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_birth_brings_the_black_box_first(bench):
    bench = bench()
    assert bench.next().kind == framing.BOOTED
    worker = bench.spawn(generation=5)
    frames = [bench.next(), bench.next()]
    assert [(frame.kind, frame.slot, frame.generation) for frame in frames] == [
        (framing.BLACK_BOX, 0, 5),
        (framing.SPAWNED, 0, 5),
    ]
    assert bench._next(worker, []).kind == framing.READY
    box = bench.opened[framing.BLACK_BOX]
    assert (black_box.last_heartbeat(box), black_box.read_stack(box)) == (None, None)
    before = time.monotonic()
    bench.call(worker, pidfdpool.heartbeat)
    assert before <= black_box.last_heartbeat(box) <= time.monotonic()


def test_a_worker_that_is_terminated_leaves_its_stack_and_what_it_has_used(bench, tmp_path):
    bench = bench()
    worker = bench.spawn()
    while (frame := bench.next()).kind != framing.SPAWNED:
        pass
    pid = frame.value
    call = payload.dumps((calls.touch_and, (str(tmp_path / "begun"), "regex"), {}))
    tokens.put(bench.tokens, 1)
    worker.send_nowait(framing.encode(framing.TASK, 0, 1, 7, call))
    eventually(lambda: (tmp_path / "begun").exists(), "the task runs")
    eventually(lambda: sum(map(int, open(f"/proc/{pid}/stat").read().split()[13:15])) > 20, "it takes its time")
    os.kill(pid, signal.SIGTERM)
    died = bench.next()
    assert (died.kind, os.WTERMSIG(died.value)) == (framing.DIED, signal.SIGTERM)
    peak, seconds = framing.USAGE.unpack(died.buffers[0])
    assert 1 << 20 < peak < 1 << 32
    assert 0.1 < seconds < 60
    assert "touch_and" in black_box.read_stack(bench.opened[framing.BLACK_BOX])


def test_standard_error_is_captured_from_the_beginning(bench):
    bench = bench(capture_stderr=True, initializer=(print_error, ("from the initializer",)))
    worker = bench.spawn()
    assert [bench.next().kind for _ in range(4)] == [
        framing.BOOTED,
        framing.BLACK_BOX,
        framing.STDERR,
        framing.SPAWNED,
    ]
    bench.call(worker, print_error, "from the task")
    bench.call(worker, os.system, "echo from a child >&2")
    worker.send_nowait(framing.encode(framing.EXIT))
    assert bench.next().kind == framing.DIED
    with open(bench.opened.pop(framing.STDERR)) as captured:  # to its end: nobody else holds the other one
        assert captured.read() == "from the initializer\nfrom the task\nfrom a child\n"


def print_error(text):
    os.write(2, f"{text}\n".encode())  # in a forked worker sys.stderr is the test runner's own


def test_memory_is_told_only_where_it_is_watched(bench):
    for watched in (False, True):
        one = bench(watch_memory=watched)
        frame, _, _ = one.call(one.spawn(), calls.double, 1)
        assert (frame.generation > 1024) is watched
        assert frame.generation < 1 << 22


def ask_from_two_threads():
    answers = [pidfdpool.current_task()]
    thread = threading.Thread(target=lambda: answers.append(pidfdpool.current_task()))
    thread.start()
    thread.join()
    pid = os.fork()
    if not pid:
        pidfdpool.unhealthy("this is for nobody")
        pidfdpool.heartbeat()
        os._exit(0 if pidfdpool.current_task() is None else 1)
    assert os.waitpid(pid, 0)[1] == 0
    return [tuple(answer) for answer in answers]


def test_a_task_knows_what_it_is_and_what_it_forks_does_not(bench):
    bench = bench()
    worker = bench.spawn()
    answers = bench.call(worker, ask_from_two_threads, attempt=3, deadline=12.5)[1]
    assert answers == [(7, 3, 12.5)] * 2
    assert bench.call(worker, ask_from_two_threads)[1] == [(7, 1, None)] * 2
    while bench.next().kind != framing.SPAWNED:
        pass
    box = bench.opened[framing.BLACK_BOX]
    assert (black_box.last_heartbeat(box), black_box.read_stack(box)) == (None, None)


def report_from_many_threads():
    threads = [threading.Thread(target=pidfdpool.unhealthy, args=(f"reason {n} \ud800",)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return bytes(1_000_000)


def test_any_thread_may_say_that_the_worker_is_not_well(bench):
    bench = bench()
    worker = bench.spawn()
    said = bench.call(worker, report_from_many_threads)[2]
    reasons = sorted(bytes(frame.buffers[0]).decode() for frame in said if frame.kind == framing.UNHEALTHY)
    assert reasons == sorted(f"reason {n} \\ud800" for n in range(20))


def report_while_the_result_is_written():
    def report():
        for number in range(200):
            pidfdpool.unhealthy(f"{number}")

    signal.signal(signal.SIGALRM, lambda *_: pidfdpool.unhealthy("from a handler"))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    threading.Thread(target=report).start()
    return bytes(20_000_000)


def test_a_word_in_the_middle_of_a_result_neither_splits_it_nor_hangs(bench):
    bench = bench()
    worker = bench.spawn()
    assert bench.call(worker, report_while_the_result_is_written)[1] == bytes(20_000_000)
    worker.send_nowait(framing.encode(framing.EXIT))
    assert bench.said_to_the_end(worker) == {framing.UNHEALTHY}, "in whole frames"


def test_a_worker_that_is_not_well_begins_no_task_that_was_sent_ahead(bench):
    bench = bench()
    worker = bench.spawn()
    bench.call(worker, pidfdpool.unhealthy, "a reason")
    tokens.put(bench.tokens, 1)
    worker.send_nowait(framing.encode(framing.TASK, 0, 1, 8, payload.dumps((calls.double, (1,), {}))))
    assert tokens.take(bench.tokens), "it leaves the token for the host to take back"
    worker.send_nowait(framing.encode(framing.EXIT))
    assert bench.said_to_the_end(worker) == {framing.DROPPED}


def test_what_a_task_starts_is_spared_if_it_says_so(bench):
    bench = bench()
    worker = bench.spawn()
    bench.call(worker, calls.double, 1)
    before = bench.call(worker, start, "daemon")[1]
    spared = bench.call(worker, start, "daemon", flags=framing.SPARE_DESCENDANTS)[1]
    after = bench.call(worker, start, "session")[1]
    kill(bench.call(worker, os.getpid)[1])
    gone = lambda: not any(is_alive(pid) or is_zombie(pid) for pid in (before, after))  # noqa: E731
    eventually(gone, "those not spared are gone")
    assert is_alive(spared)
    kill(spared)


def leave_descriptors(count):
    """In the template: allow so many more descriptors than are open, with no number free below them."""
    last = max(int(name) for name in os.listdir("/proc/self/fd"))
    while os.dup(1) < last:
        pass
    serving = 3  # the SIGCHLD pipe's two ends and the epoll
    limit = len(os.listdir("/proc/self/fd")) - 1 + serving + count
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


@pytest.mark.parametrize("count", range(-1, 6))
def test_a_birth_that_lacks_a_descriptor_fails_as_a_whole(bench, count):
    bench = bench(preload_call=partial(leave_descriptors, count), capture_stderr=True)
    assert bench.next().kind == framing.BOOTED
    descriptors = lambda: sorted(os.listdir(f"/proc/{bench.pid}/fd"))  # noqa: E731
    eventually(lambda: len(descriptors()) >= 6, "it serves")
    held = None
    for generation in range(3):
        bench.spawn(generation)
        answer = bench.next()
        if answer.kind != framing.SPAWN_FAILED:
            break
        assert answer.value == errno.EMFILE
        now = descriptors()
        assert held in (None, now)
        held = now
        assert children(bench.pid) == []
    # Its channel, the black box, two of the pipe, the pidfd; but the preload's guard leaves a number or two free.
    if count == -1:
        assert answer.kind == framing.SPAWN_FAILED
    if count == 5:
        assert answer.kind == framing.BLACK_BOX
    if answer.kind == framing.BLACK_BOX:
        assert [answer.kind, bench.next().kind, bench.next().kind] == [
            framing.BLACK_BOX,
            framing.STDERR,
            framing.SPAWNED,
        ]


def test_outside_of_a_worker_the_calls_of_tasks_do_nothing():
    assert pidfdpool.heartbeat() is None
    assert pidfdpool.unhealthy("reason") is None
    assert pidfdpool.current_task() is None
    with pytest.raises(TypeError, match="reason must be a str, not 3"):
        pidfdpool.unhealthy(3)
