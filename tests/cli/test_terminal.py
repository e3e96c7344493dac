"""`map` at a terminal: the progress bar, Ctrl-C and Ctrl-D as keys."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading

import pytest

pytest.importorskip("tqdm")

NUMBERS = b"".join(b"%d\n" % number for number in range(5000))


class Terminal:
    """A pseudo terminal whose other end is collected as it comes, so that nobody waits for space in it."""

    def __init__(self):
        self._keys, self.end = pty.openpty()
        self.path = os.ttyname(self.end)
        self._shown = bytearray()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._collect)
        self._thread.start()

    def _collect(self):
        while True:
            try:
                data = os.read(self._keys, 65536)
            except OSError:  # nobody has the other end any more
                data = b""
            with self._changed:
                self._shown += data
                self._changed.notify_all()
            if not data:
                return

    def press(self, keys):
        os.write(self._keys, keys)

    def wait_for(self, text):
        with self._changed:
            assert self._changed.wait_for(lambda: text in self._shown, 30), bytes(self._shown)

    def shown(self):
        """Return all that was written to it. Once only, at the end."""
        os.close(self.end)
        self._thread.join()
        os.close(self._keys)
        return bytes(self._shown)


def test_a_bar_in_bytes_where_the_end_is_known(command, tmp_path):
    file = tmp_path / "numbers.jsonl"
    file.write_bytes(NUMBERS)
    terminal = Terminal()
    process = command.start("map", "jobs:same", str(file), stdin=subprocess.DEVNULL, stderr=terminal.end)
    assert process.stdout.read() == NUMBERS
    assert process.wait() == 0
    shown = terminal.shown()
    assert b"100%" in shown
    assert b"B/s" in shown


def test_a_bar_in_documents_where_it_is_not(command):
    terminal = Terminal()
    process = command.start("map", "jobs:same", stderr=terminal.end)
    output, _ = process.communicate(NUMBERS)
    assert (process.returncode, output) == (0, NUMBERS)
    assert b"5000 documents" in terminal.shown()


def test_messages_come_after_the_bar(command):
    terminal = Terminal()
    process = command.start("map", "jobs:fail_on_three", stderr=terminal.end)
    output, _ = process.communicate(b"1\n2\n3\n")
    assert (process.returncode, output) == (1, b"1\n2\n")
    shown = terminal.shown()
    assert shown.endswith(b"\n<stdin>:3: ValueError: three is not allowed\r\n")


def test_documents_and_bar_on_one_terminal(command):
    terminal = Terminal()
    process = command.start("map", "jobs:same", stdout=terminal.end, stderr=terminal.end)
    process.communicate(NUMBERS)
    assert process.wait() == 0
    shown = terminal.shown()
    assert b"5000 documents" in shown
    for line in NUMBERS.splitlines():
        assert b"\r%s\r\n" % line in shown or b"\n%s\r\n" % line in shown


@pytest.mark.parametrize("option", [["--no-progress"], []], ids=["not wanted", "tqdm is not installed"])
def test_no_bar(command, tmp_path, option):
    path = []
    if not option:
        (tmp_path / "tqdm.py").write_text("raise ImportError('not installed')")
        path = [str(tmp_path)]
    terminal = Terminal()
    process = command.start("map", "jobs:same", *option, stderr=terminal.end, path=path)
    output, _ = process.communicate(NUMBERS)
    assert (process.returncode, output) == (0, NUMBERS)
    shown = terminal.shown()
    assert shown.count(b"\n") == len(path)
    assert (b"pip install tqdm" in shown and b"--no-progress" in shown) is bool(path), "how to get one, once"


def test_nobody_is_told_of_a_bar_where_there_would_be_none(command, tmp_path):
    (tmp_path / "tqdm.py").write_text("raise ImportError('not installed')")
    process = command.start("map", "jobs:same", stderr=subprocess.PIPE, path=[str(tmp_path)])
    assert process.communicate(NUMBERS) == (NUMBERS, b"")


def at_terminal(command, terminal, *arguments):
    """Start the command in a session of its own whose terminal this is."""
    become = "import os, sys; os.close(os.open(sys.argv[1], os.O_RDWR)); os.execv(sys.executable, sys.argv[2:])"
    line = [sys.executable, "-c", become, terminal.path, *command.line(*arguments)]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal.end)
    return subprocess.Popen(line, start_new_session=True, **streams, **command.options({}))


def test_ctrl_c_as_a_key(command):
    terminal = Terminal()
    process = at_terminal(command, terminal, "map", "jobs:hang", "--no-progress")
    terminal.press(b"1\n")
    terminal.wait_for(b"hanging")
    terminal.press(b"\x03")
    assert process.wait(30) == -signal.SIGINT
    shown = terminal.shown()
    assert shown.endswith(b"interrupted\r\n")
    assert b"Traceback" not in shown


def test_typed_lines_and_one_ctrl_d(command):
    terminal = Terminal()
    process = at_terminal(command, terminal, "map", "jobs:increment", "--no-progress")
    terminal.press(b'{"n": 41}\n')
    terminal.wait_for(b'{"n":42}')
    terminal.press(b"\x04")
    assert process.wait(30) == 0
    terminal.shown()
