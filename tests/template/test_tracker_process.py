"""The resource tracker that a template starts for its host."""

from __future__ import annotations

import fcntl
import os
import signal
import termios
import uuid

import pytest

from pidfdpool.errors import TemplateError
from pidfdpool.pidfd import Pidfd, sentinel_pipe
from pidfdpool.template import interpreter, tracker_process
from tests.conditions import children, eventually, open_descriptors


class Tracker:
    """One that was started: what it is told, and what became of it."""

    def __init__(self):
        read_end, self.write_end = sentinel_pipe()
        before = set(children(os.getpid()))
        tracker_process.start(read_end)
        (self.pid,) = set(children(os.getpid())) - before

    def tell(self, line):
        os.write(self.write_end, line)
        eventually(self._has_read_all, "it has read that")

    def _has_read_all(self):
        return not int.from_bytes(fcntl.ioctl(self.write_end, termios.FIONREAD, bytes(4)), "little")

    def end(self):
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1
            os.waitpid(self.pid, 0)


@pytest.fixture
def tracker():
    before = open_descriptors()
    tracker = Tracker()
    yield tracker
    tracker.end()
    assert open_descriptors() == before


def test_it_removes_what_is_registered_with_it_when_nobody_uses_it_any_more(capfd):
    tracker = Tracker()
    path = f"/dev/shm/pidfdpool-test-{uuid.uuid4().hex}"
    open(path, "x").close()
    tracker.tell(f"REGISTER:/{os.path.basename(path)}:shared_memory\n".encode())
    assert os.path.exists(path)
    tracker.end()
    assert not os.path.exists(path)
    assert "1 leaked shared_memory object" in capfd.readouterr().err


def test_what_ends_other_programs_at_a_terminal_does_not_end_it(tracker):
    assert os.getpgid(tracker.pid) == tracker.pid
    with Pidfd.open(tracker.pid) as handle:
        for number in (signal.SIGINT, signal.SIGTERM):
            handle.send_signal(number)
        tracker.tell(b"PROBE:0:noop\n")
        assert handle.alive()


def test_what_this_process_would_hand_down_is_not_handed_down():
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    tracker = Tracker()
    os.close(writer)
    assert os.read(reader, 1) == b"", "nobody else has it"
    os.close(reader)
    tracker.end()


@pytest.mark.parametrize(
    "error", [TemplateError("no Python"), OSError(11, "no process left"), ImportError()], ids=repr
)
def test_if_there_can_be_none_nobody_reads_the_pipe(monkeypatch, error):
    def refuse():
        raise error

    monkeypatch.setattr(interpreter, "find", refuse)
    read_end, write_end = sentinel_pipe()
    tracker_process.start(read_end)
    with pytest.raises(BrokenPipeError):
        os.write(write_end, b"PROBE:0:noop\n")
    os.close(write_end)
