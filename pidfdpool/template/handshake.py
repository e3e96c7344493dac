"""Waiting in the host for a template to say hello, and for the end of the launcher, which was the host's child.

Called by `client`. What has been started may be no Python at all: then it ends, or stays silent, and is ended.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from pidfdpool.pidfd import ExitStatus, Pidfd, SentinelHandle
from pidfdpool.pidfd.sentinel import reap as reap_child
from pidfdpool.process import hygiene, interruptible, native
from pidfdpool.template.interpreter import Unfit
from pidfdpool.template.launch import OTHER_PYTHON
from pidfdpool.transport import framing
from pidfdpool.worker.boot import PIDFD

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from pidfdpool.pidfd import ProcessHandle
    from pidfdpool.template.client import HostEnd

LEAVING = 5.0  # seconds that a launcher has for its end, which takes it a millisecond


class Launcher:
    """What was started to be a launcher.

    program: what it runs, for people.
    patience: seconds that it has to bring the template up.
    leads_group: whether it leads a process group of its own.
    """

    def __init__(self, program: str, patience: float, *, leads_group: bool = False) -> None:
        self.program = program
        self.patience = patience
        self.leads_group = leads_group
        self.pid = 0  # until there is one


def shake_hands(link: HostEnd, launcher: Launcher, mask: AbstractSet[int]) -> None:
    """Wait until the template has said hello. Called with all signals blocked; lets all but `mask` interrupt this.

    Raises:
        Unfit: the program ended, stayed silent, or said what no template says. Then it is reaped.
        OSError: there can be no template, whatever the program. Then the launcher is reaped, too.
        BaseException: a handler raised it. Then the launcher is reaped, too.
    """
    named = _named(launcher.pid)
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _await_hello(link, launcher.program, launcher.patience)
    except (EOFError, ConnectionResetError) as error:
        status = _end(link, launcher, named) or ExitStatus.UNKNOWN
        if status.code == OTHER_PYTHON:
            raise Unfit(f"{launcher.program} is a Python of another version") from error
        told = f"{launcher.program}, started as the pool's template, ended before it was ready: {status}"
        raise Unfit(told) from error
    except framing.WireError as error:
        _end(link, launcher, named)
        raise Unfit(f"{launcher.program}, started as the pool's template, said what no template says") from error
    except BaseException:
        _end(link, launcher, named)
        raise
    finally:
        if named is not None:
            named.close()


def _await_hello(link: HostEnd, program: str, patience: float) -> None:
    steps = interruptible.Steps(patience)
    poller = native.poll()
    poller.register(link.channel.fileno(), select.POLLIN)
    while link.handle is None:
        seconds = steps.next()
        assert seconds is not None
        if not poller.poll(max(0.0, seconds) * 1000):
            if seconds > 0:
                continue
            raise Unfit(f"{program} did not start a template within {patience:g} s")
        for frame in link.channel.receive_now():
            if frame.kind == framing.SPAWN_FAILED:
                raise OSError(frame.value, f"{program} could not fork the template: {os.strerror(frame.value)}")
            if frame.kind not in (framing.LAUNCHED, framing.HELLO):
                link.early.append(frame)
                continue
            fd = link.channel.descriptor()
            if fd is None:
                raise OSError(errno.EMFILE, "no descriptor number left for the template's pidfd")
            handle = _handle(link.handles, fd, frame.value)
            if frame.kind == framing.LAUNCHED:
                link.launcher = handle
            else:
                link.handle = handle


def _handle(handles: str, fd: int, pid: int) -> ProcessHandle:
    if handles == PIDFD:
        return Pidfd.from_fd(fd, pid)
    return SentinelHandle(fd, pid, _cannot_signal)


def _cannot_signal(_number: int, _group: bool) -> None:
    raise AssertionError("the template and the launcher are told to leave, never signalled")


def _named(launcher: int) -> ProcessHandle | None:
    """Return a handle of a launcher that may never speak; None: it is gone, or there is no pidfd to be had."""
    with suppress(OSError):
        return Pidfd.open(launcher)
    return None


def _end(link: HostEnd, launcher: Launcher, named: ProcessHandle | None) -> ExitStatus | None:
    """See the end of a start that came to nothing, and return how the launcher ended. No handler interrupts this.

    A launcher leaves when it sees that nobody listens any more. The host must not be left with a child, so anything
    else is killed, where it has a pidfd.
    """
    passing, link.launcher = link.launcher, None
    with hygiene.signals_blocked():
        link.channel.close()
        if passing is not None:
            passing.close()
        if named is None:
            return _reap_by_number(launcher.pid, time.monotonic() + LEAVING)
        if not named.wait(LEAVING):
            with suppress(OSError):
                named.send_signal(signal.SIGKILL, group=launcher.leads_group)
            named.wait(LEAVING)
        return named.exit_status()


def reap(launcher: ProcessHandle, deadline: float) -> None:
    """Wait for the end of a launcher whose template has said hello, and reap it if nobody else has."""
    poller = native.poll()
    poller.register(launcher.fileno(), select.POLLIN)
    poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
    if isinstance(launcher, Pidfd):
        launcher.exit_status()
    else:
        _reap_by_number(launcher.pid, deadline)  # its pipe closes a little before it can be waited for


def _reap_by_number(launcher: int, deadline: float) -> ExitStatus:
    """Reap a child that has no pidfd. While it is not reaped, its number is its own."""
    while time.monotonic() < deadline:
        try:
            status = reap_child(launcher)
        except ChildProcessError:  # somebody else has reaped it
            break
        if status is not None:
            return status
        native.sleep(0.001)
    return ExitStatus.UNKNOWN
