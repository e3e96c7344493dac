"""A worker that this process forks itself, without a pool and a template: the test is its host."""

from __future__ import annotations

import atexit
import os
import traceback

from pidfdpool.loop import answers
from pidfdpool.pidfd import Pidfd
from pidfdpool.process import hygiene, native
from pidfdpool.serialization import payload
from pidfdpool.transport import black_box, frame_rules, framing, tokens
from pidfdpool.transport import channel as channels
from pidfdpool.transport.channel import Channel
from pidfdpool.worker import mark
from pidfdpool.worker.boot import PIDFD, Boot
from pidfdpool.worker.process import Worker

COOKIE = b"abcd"
MARK = mark.make(5, 1)


class OwnWorker:
    """A worker in slot 3, and the host's ends of what belongs to it.

    prepare: called in the process before it is a worker. boot: as for `Boot`.
    """

    def __init__(self, prepare=lambda: None, **boot):
        self.frames = []
        self.box = black_box.create()
        self.tokens, tokens_fd = tokens.pair()
        ours, theirs = channels.pair()
        pipe = answers.attach(ours)
        self.sentinel, sentinel = os.pipe2(os.O_CLOEXEC)  # at its end when the worker has ended
        fields = {
            "preload": (),
            "forked": True,
            "preload_call": None,
            "initializer": None,
            "argv": [],
            "authkey": b"k",
        }
        told = Boot(handles=PIDFD, host_pid=os.getpid(), host_name="TheHost", **fields | boot)
        # Signals are blocked as in a template, so that none comes before the worker is ready for it.
        with hygiene.signals_blocked():
            pid = os.fork()
            if not pid:
                self._be_worker(prepare, pipe, ours, theirs, tokens_fd, sentinel, told)
        self.process = Pidfd.open(pid)
        theirs.close()
        native.close(tokens_fd)
        native.close(sentinel)
        self.channel = Channel(ours, frame_rules.FROM_WORKER, receive_cookie=COOKIE)
        self.answers = answers.Answers(pipe, self.channel, COOKIE)

    def _be_worker(self, prepare, pipe, ours, theirs, tokens_fd, sentinel, told):
        status = 1
        try:
            atexit._clear()  # what the tests have registered
            native.close(pipe)
            ours.close()
            native.close(self.tokens)
            native.close(self.sentinel)
            hygiene.reset_signals()
            hygiene.unblock_signals()
            prepare()
            host_fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            made = Worker(theirs, COOKIE, 3, told, host_fd, sentinel, tokens_fd, self.box, mark.Mark(MARK))
            status = made.run()
        except BaseException:
            traceback.print_exc()
        finally:
            hygiene.flush_output()
            os._exit(status)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.exit_status() is None:
            self.process.send_signal(9)
            assert self.process.wait(40)
            self.process.exit_status()
        self.process.close()
        self.answers.close()
        self.channel.close()
        for fd in (self.box, self.tokens, self.sentinel):
            native.close(fd)

    # ---- what the host says ------------------------------------------------------------------------------------

    def send(self, kind, slot=0, generation=0, value=0, buffers=()):
        """Send a frame."""
        self.channel.send(framing.encode(kind, slot, generation, value, list(buffers)))

    def send_task(self, number, function, *arguments, flags=0, attempt=1, more=()):
        """Send a task with its token. more: the buffers behind the call."""
        tokens.put(self.tokens, 1)
        call = payload.dumps((function, arguments, {}))
        self.send(framing.TASK, flags, attempt, number, [*call, *more])

    def send_exit(self):
        self.send(framing.EXIT)

    # ---- what the worker says ----------------------------------------------------------------------------------

    def receive(self):
        """Return the next frame of the worker's, from wherever it comes.

        Raises:
            EOFError: it says nothing any more.
        """
        while not self.frames:
            poll = native.poll()
            ways = {
                self.answers.fileno(): self.answers.receive_when_pipe_is_ready,
                self.channel.fileno(): self.answers.receive_when_channel_is_ready,
            }
            for fd in ways:
                poll.register(fd, 1)
            ready = poll.poll(30_000)
            assert ready, "the worker says something"
            for fd, _ in ready:
                try:
                    self.frames += [framing.made(frame) for frame in ways[fd]()]
                except BlockingIOError:
                    pass  # it was read by the other way
                except EOFError:  # of one of the two, while the other may have had the last frames
                    if not self.frames:
                        raise
        return self.frames.pop(0)

    def result(self):
        """Return the number of the task and the result in the next frame, which is an answer."""
        frame = self.receive()
        assert frame.kind == framing.RESULT, (frame.kind, frame.buffers)
        return frame.value, payload.loads(frame.buffers)

    def run(self, number, function, *arguments, **options):
        """Run a task, and return its result."""
        self.send_task(number, function, *arguments, **options)
        found, result = self.result()
        assert found == number
        return result

    def status(self):
        """Wait for its end, and return its exit code."""
        assert self.process.wait(40), "it exits"
        return self.process.exit_status().code
