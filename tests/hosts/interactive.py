"""Talking to an interactive host: a terminal whose keys are pressed, and what is said on it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tests.hosts.observing import Observed, environment, expect
from tests.hosts.programs.session import FINE, SAY_FINE

CTRL_C = b"\x03"
CTRL_Z = b"\x1a"
CTRL_BACKSLASH = b"\x1c"
CTRL_D = b"\x04"

_ERROR = re.compile(r"^((?:\w+\.)*\w*(?:Error|Exception|Interrupt|Pool|Crashed|Refused)\b(?:: .*)?)$", re.MULTILINE)
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\r")


def last_error(said: str) -> str | None:
    """Return what the last traceback in there ends with; only the message, if it is a failed assertion."""
    found = _ERROR.findall(said)
    if not found:
        return None
    message = found[-1].rpartition("AssertionError: ")[2]
    return re.sub(r"^(\w+\.)+(?=\w+(:|$))| at 0x[0-9a-f]+|: $", "", message)


def expect_fine(done: subprocess.CompletedProcess[str]) -> None:
    """Fail the case unless the program says that all is well, and nothing on standard error."""
    said = f"{done.stdout}\n{done.stderr}"
    wrong = last_error(said) or f"the host ends with {done.returncode}"
    expect(done.returncode == 0 and FINE in done.stdout, wrong, said)
    expect(not done.stderr, f"noise on standard error: {(done.stderr.strip().splitlines() or [''])[-1]}", done.stderr)


def _log_in() -> None:
    """Make standard input the terminal of this new session, whose signals may be ignored where the tests run."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_DFL)


class Terminal:
    """A pseudo terminal, seen from the keys, and the program that was started at it, in a session of its own."""

    def __init__(self, command: Sequence[str], env: dict[str, str], **options: Any) -> None:
        self._keys, end = pty.openpty()
        self._shown = bytearray()
        try:
            self.process = subprocess.Popen(
                command,
                stdin=end,
                stdout=end,
                stderr=end,
                start_new_session=True,
                preexec_fn=_log_in,
                env=env,
                **options,
            )
        except BaseException:
            self.hang_up()
            raise
        finally:
            os.close(end)

    @property
    def shown(self) -> str:
        """All that has been shown, without what moves the cursor and chooses colours."""
        return _CONTROL.sub("", self._shown.decode(errors="replace"))

    def press(self, keys: bytes | str) -> None:
        os.write(self._keys, keys.encode() if isinstance(keys, str) else keys)

    def wait_until(self, condition: Callable[[], Any], observed: str, seconds: float = 20.0) -> Any:
        """Return the condition's first true value; fail the case if there is none in time."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise Observed(f"{observed}\nnot within {seconds:g} s; shown: {self.shown}")
            self.collect(0.01)
        return value

    def wait_for(self, text: str, observed: str, seconds: float = 20.0, *, times: int = 1) -> None:
        """Wait until a text has been shown, so many times."""
        self.wait_until(lambda: self.shown.count(text) >= times, observed, seconds)

    def wait(self, observed: str, seconds: float = 20.0) -> int:
        """Wait for the program's end and return its exit status."""
        self.wait_until(lambda: self.process.poll() is not None, observed, seconds)
        while self.collect(0):
            pass
        return self.process.returncode

    def collect(self, seconds: float) -> bool:
        """Take up what is written within this time; return whether there was anything."""
        if self._keys < 0 or not select.select([self._keys], [], [], seconds)[0]:
            return False
        try:
            piece = os.read(self._keys, 65536)
        except OSError:  # the last one has closed the other end
            time.sleep(seconds)
            return False
        self._shown += piece
        return bool(piece)

    def hang_up(self) -> None:
        """Close the terminal, as a window is closed or a line breaks down."""
        if self._keys >= 0:
            os.close(self._keys)
            self._keys = -1


@contextmanager
def terminal(
    contender: str, command: Sequence[str], *, env: dict[str, str] | None = None, **options: Any
) -> Iterator[Terminal]:
    """Start a program at a terminal of its own, and end it with the block."""
    screen = Terminal(command, {**environment(contender), "TERM": "dumb", **(env or {})}, **options)
    try:
        yield screen
    finally:
        screen.process.kill()
        screen.process.wait()
        screen.hang_up()


def type_cells(screen: Terminal, cells: Sequence[str], prompt: str) -> None:
    """Type statements, each when the prompt (a pattern) has come back. The first error ends it, and the case."""
    at_prompt = re.compile(rf"(^|\n){prompt}$")
    screen.wait_until(lambda: at_prompt.search(screen.shown), "there is no prompt")
    for cell in cells:
        before = len(screen.shown)
        lines = cell.splitlines()
        # A statement that has a body ends with an empty line.
        screen.press("\n".join(lines) + ("\n\n" if len(lines) > 1 else "\n"))

        def answered(since: int = before) -> bool:
            # With the line break before the prompt: what was typed is echoed first.
            return bool(at_prompt.search(screen.shown[since:].lstrip("\n"), 1)) or screen.process.poll() is not None

        screen.wait_until(answered, "the host hangs")
        said = screen.shown[before:]
        expect("Traceback (most recent" not in said, last_error(said) or "an error", said)
    if SAY_FINE in cells:
        expect(f"\n{FINE}\n" in screen.shown, "the session does not come to its end", screen.shown)
