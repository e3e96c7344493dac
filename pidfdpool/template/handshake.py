"""Waits in the host until a launcher has exited or a new template has sent HELLO; cleans up after a failed start.

Called by `client`, in the host, on the thread that starts the template, or on the pool thread. The program that was
started may be no Python at all. Then it exits, or stays silent and is killed.
"""

from __future__ import annotations

import errno
import os
import select
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from pidfdpool.pidfd import ExitStatus, Pidfd, SentinelHandle
from pidfdpool.process import hygiene, interruptible, native
from pidfdpool.process.native import signal
from pidfdpool.template import connection as connections
from pidfdpool.template.interpreter import UnusableInterpreter
from pidfdpool.template.launch import OTHER_PYTHON, is_detached_template
from pidfdpool.transport import framing
from pidfdpool.worker.boot import PIDFD

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from pidfdpool.pidfd import ProcessHandle
    from pidfdpool.template.connection import Launcher, TemplateConnection


def wait_for_template(connection: TemplateConnection, launcher: Launcher, mask: AbstractSet[int]) -> None:
    """Wait until the template has sent HELLO. Called with all signals blocked; only `mask` stays blocked meanwhile.

    Raises:
        UnusableInterpreter: the program exited, stayed silent, or wrote what no template writes. It is reaped.
        OSError: there can be no template, whatever the program. The launcher is reaped.
        BaseException: a signal handler raised it. The launcher is reaped.
    """
    handle = _open_pidfd(launcher.pid)
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _receive_hello(connection, launcher)
    except (EOFError, ConnectionResetError) as error:
        status = _end_launcher(connection, launcher, handle) or ExitStatus.UNKNOWN
        if status.code == OTHER_PYTHON:
            raise UnusableInterpreter(f"{launcher.program} is a Python of another version") from error
        raise UnusableInterpreter(_ended_early(launcher, status)) from error
    except framing.ProtocolError as error:
        _end_launcher(connection, launcher, handle)
        problem = f"{launcher.program}, started as the pool's template, did not speak the template's protocol"
        raise UnusableInterpreter(problem) from error
    except BaseException:
        _end_launcher(connection, launcher, handle)
        raise
    finally:
        if handle is not None:
            handle.close()


def expect_hello(connection: TemplateConnection, launcher: Launcher) -> None:
    """Note that `reap_launcher` is to wait for the launcher, and `wait_for_hello` for the template.

    Called with all signals blocked. A launcher that gets no pidfd is reaped here.
    """
    connection.awaited = launcher
    connection.launcher = _open_pidfd(launcher.pid)
    if connection.launcher is None:
        connections.reap_by_number(launcher.pid, time.monotonic() + launcher.start_timeout)


def reap_launcher(connection: TemplateConnection, mask: AbstractSet[int]) -> None:
    """Wait until the launcher of a template that is awaited has exited, and reap it. In the thread that started it.

    Called with all signals blocked; only `mask` is blocked meanwhile. How the launcher ends does not matter: if there
    is no template, `wait_for_hello` will tell.

    Raises:
        BaseException: a signal handler raised it. The launcher is reaped.
    """
    try:
        _wait_and_reap(connection, mask)
    except BaseException:
        _reap(connection)  # a handler may have raised anywhere, if another thread has taken its signal
        raise


def _wait_and_reap(connection: TemplateConnection, mask: AbstractSet[int]) -> None:
    handle, launcher = connection.launcher, connection.awaited
    if handle is None or launcher is None:
        return
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        with suppress(UnusableInterpreter):  # it has not exited in time
            _await_exit(handle, launcher)
    finally:
        _reap(connection)


def _reap(connection: TemplateConnection) -> None:
    """Reap the launcher of a template that is awaited, if that was not done yet. May be called again."""
    handle, launcher = connection.launcher, connection.awaited
    if handle is None or launcher is None:
        return
    with hygiene.signals_blocked():
        if not handle.closed:
            _kill_and_reap(handle, launcher)
            handle.close()
        connection.launcher = None


def _await_exit(handle: ProcessHandle, launcher: Launcher) -> None:
    steps = interruptible.WaitSteps(launcher.start_timeout)
    poller = native.poll()
    poller.register(handle.fileno(), select.POLLIN)
    _wait(poller, steps, launcher)


def _wait(poller: select.poll, steps: interruptible.WaitSteps, launcher: Launcher) -> None:
    """Wait until what is polled is ready. Raises UnusableInterpreter when the launcher's time is over."""
    while True:
        seconds = steps.next()
        assert seconds is not None
        if poller.poll(max(0.0, seconds) * 1000):
            return
        if seconds <= 0:
            raise UnusableInterpreter(
                f"{launcher.program} did not start a template within {launcher.start_timeout:g} s"
            )


def wait_for_hello(connection: TemplateConnection) -> None:
    """Wait for the HELLO of a template whose launcher was reaped already. On the pool thread.

    Raises:
        EOFError: the template has ended, or has written what no template writes. It may be worth another attempt.
        UnusableInterpreter: it stayed silent, and is killed.
        OSError: no descriptor is left.
    """
    launcher = connection.awaited
    assert launcher is not None
    try:
        _receive_hello(connection, launcher)
    except UnusableInterpreter:
        _kill_detached(connection.cookie)
        raise
    except framing.ProtocolError as error:
        _kill_detached(connection.cookie)
        raise EOFError from error
    except ConnectionResetError as error:
        raise EOFError from error
    finally:
        connection.awaited = None


def _kill_detached(cookie: int) -> None:
    """Kill a template that has not told the host its pidfd. It is found by what no other process was started with."""
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdecimal() and is_detached_template(int(name), cookie):
            with suppress(OSError), Pidfd.open(int(name)) as handle:
                if is_detached_template(int(name), cookie):  # the number was not used again before it was opened
                    handle.send_signal(signal.SIGKILL)


def _ended_early(launcher: Launcher, status: ExitStatus) -> str:
    return f"{launcher.program}, started as the pool's template, ended before it was ready: {status}"


def _receive_hello(connection: TemplateConnection, launcher: Launcher) -> None:
    steps = interruptible.WaitSteps(launcher.start_timeout)
    poller = native.poll()
    poller.register(connection.channel.fileno(), select.POLLIN)
    while connection.handle is None:
        _wait(poller, steps, launcher)
        for frame in connection.channel.receive_nowait():
            if frame.kind == framing.SPAWN_FAILED:
                problem = f"{launcher.program} could not fork the template: {os.strerror(frame.value)}"
                raise OSError(frame.value, problem)
            if frame.kind not in (framing.LAUNCHED, framing.HELLO):
                connection.early_frames.append(frame)
                continue
            fd = connection.channel.next_descriptor()
            if fd is None:
                raise OSError(errno.EMFILE, "no descriptor number left for the template's pidfd")
            handle = _handle(connection.handles, fd, frame.value)
            if frame.kind == framing.LAUNCHED:
                connection.launcher = handle
            else:
                connection.handle = handle


def _handle(handles: str, fd: int, pid: int) -> ProcessHandle:
    if handles == PIDFD:
        return Pidfd.from_fd(fd, pid)
    return SentinelHandle(fd, pid, _cannot_signal)


def _cannot_signal(_number: int, _group: bool) -> None:
    raise AssertionError("without pidfds, template and launcher are asked to exit, and never signalled")


def _open_pidfd(launcher: int) -> ProcessHandle | None:
    """Return a handle of a launcher that may never write anything; None: it is gone, or there are no pidfds."""
    with suppress(OSError):
        return Pidfd.open(launcher)
    return None


def _end_launcher(
    connection: TemplateConnection, launcher: Launcher, handle: ProcessHandle | None
) -> ExitStatus | None:
    """End the launcher of a start that failed, reap it, and return how it ended. No signal handler interrupts this.

    A launcher exits when it sees that its channel is closed. The host must not be left with a child, so any other
    program is killed, where it has a pidfd.
    """
    announced, connection.launcher = connection.launcher, None
    with hygiene.signals_blocked():
        connection.channel.close()
        if announced is not None:
            announced.close()
        timeout = connections.LAUNCHER_EXIT_TIMEOUT
        if handle is None:
            return connections.reap_by_number(launcher.pid, time.monotonic() + timeout)
        handle.wait(timeout)
        return _kill_and_reap(handle, launcher)


def _kill_and_reap(handle: ProcessHandle, launcher: Launcher) -> ExitStatus | None:
    """Reap a launcher, and before that kill it if it has not exited. Called with all signals blocked."""
    if not handle.wait(0):
        with suppress(OSError):
            handle.send_signal(signal.SIGKILL, group=launcher.leads_group)
        handle.wait(connections.LAUNCHER_EXIT_TIMEOUT)
    return handle.exit_status()
