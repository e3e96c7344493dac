"""How the host starts a template.

Called in the host by the thread that carries out StartTemplate: the thread of the first submit, or the pool thread
when a template is replaced. `start` returns as soon as the launcher, which forks the template, runs. Requests can be
sent at once. They wait in the channel until the template reads them. The launcher exits meanwhile, and is reaped by
the same thread (`reap_launcher`). From then on the host has no child of ours. That takes a few ms. The pool thread
waits for the template's HELLO (`finish`).

Where it is not certain which program is the right Python, where no small program of the system can be the launcher,
and without pidfds, the launcher is an interpreter. Then `start` returns once the template has sent HELLO. The
launcher is exiting by then.

The exec way is safe in a host with threads, because posix_spawn runs no code of the host's in the new process. The
fork way is as safe as os.fork() is in that host at that moment. So it happens once, and only where it was asked for.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from pidfdpool.errors import TemplateError
from pidfdpool.pidfd import capabilities, sentinel_pipe
from pidfdpool.process import hygiene, native
from pidfdpool.process.native import signal
from pidfdpool.serialization import inherited
from pidfdpool.template import handshake, interpreter, launch
from pidfdpool.template.connection import Launcher, TemplateConnection
from pidfdpool.transport import channel as channels
from pidfdpool.transport import framing
from pidfdpool.worker.boot import PIDFD, SENTINEL

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet
    from typing import TypeAlias

    from pidfdpool.process.native import Socket
    from pidfdpool.template.recipe import Recipe
    from pidfdpool.worker.boot import Boot

    SignalMask: TypeAlias = AbstractSet[int] | None

_MAY_TELL = "Its standard error may tell why."
START_TIMEOUT = 60.0  # seconds; an interpreter that has not answered by then is not going to
CANDIDATE_TIMEOUT = 15.0  # seconds; the same, where another program can be tried


class NotSendable(Exception):
    """The initializer, its arguments or the preload callable cannot be pickled; `__cause__` tells why."""


class EndedEarly(Exception):
    """A template has ended before its HELLO. The text says so; an interpreter as its launcher can tell more."""


def start(recipe: Recipe, mask: SignalMask = None, *, by_interpreter: bool = False) -> TemplateConnection:
    """Start a template and return the host's connection to it.

    The caller has to call `reap_launcher`, and `finish` if `awaited` of the connection is set. Until the launcher is
    reaped, SIGCHLD has to be blocked in this thread.

    by_interpreter: have an interpreter as the launcher, which can tell why it fails (exec way).
    mask: the signals to block while this waits for the template. It is for a caller that has blocked all signals, and
        lets handlers interrupt only this wait, the one long step in here. Default: what is blocked already.

    Raises:
        TemplateError: the process ended or stayed silent; the message names the program.
        OSError: the kernel refused (no process, descriptor or memory left; no such program).
        NotSendable: the initializer, its arguments or the preload callable cannot be pickled (exec way).
        BaseException: a signal handler raised it. Everything that was started is gone again.
    """
    handles = PIDFD if capabilities().usable else SENTINEL
    try:
        boot, fds = recipe.boot(handles)
    except OSError:
        raise
    except Exception as error:
        raise NotSendable from error
    try:
        if recipe.fork:
            arguments = recipe.initializer[1] if recipe.initializer else ()
            return _fork(boot, inherited.descriptors_of(arguments), mask)
        connection = None if by_interpreter else _spawn_detached(boot, mask)
        if connection is None:
            connection = interpreter.start_first_usable(partial(_spawn, boot, mask))
        try:
            requests = connection.tracker_requests.open()
            connection.channel.send_nowait(framing.encode(framing.TRACKER_REQUESTS), requests)
            for fd in fds:
                connection.channel.send_nowait(framing.encode(framing.INHERITED), os.dup(fd))
            connection.channel.send_nowait(framing.encode(framing.BOOT, buffers=boot.dump()))
        except BaseException as error:
            if connection.awaited is None or not isinstance(error, ConnectionError):
                _abandon(connection)
                raise
            # It has ended already. `finish` tells that, and what to do about it.
        return connection
    finally:
        for fd in fds:
            native.close(fd)


def reap_launcher(connection: TemplateConnection, mask: SignalMask) -> None:
    """Wait for the exit of the launcher, and reap it. In the thread that has called `start`. mask: as there.

    Raises:
        BaseException: a signal handler raised it. The launcher is reaped.
    """
    if connection.awaited is None:
        connection.reap_launcher()
        return
    with hygiene.signals_blocked() as before:
        handshake.reap_launcher(connection, {*(before if mask is None else mask), signal.SIGCHLD})


def finish(connection: TemplateConnection) -> None:
    """Wait until the template of a connection with `awaited` has sent HELLO. On the pool thread.

    Raises:
        EndedEarly: the template has ended. Another start, by an interpreter, may work, or tell why it does not.
        TemplateError: it stayed silent, and is killed; or it has ended, and was forked from the host.
        OSError: no descriptor is left.
    """
    launcher = connection.awaited
    assert launcher is not None
    try:
        handshake.wait_for_hello(connection)
    except EOFError as error:
        problem = f"{launcher.program}, started as the pool's template, ended before it was ready"
        if launcher.leads_group:
            raise EndedEarly(problem) from error
        raise TemplateError(f"{problem}. {_MAY_TELL}") from error
    except interpreter.UnusableInterpreter as error:
        raise TemplateError(f"{error}. {_MAY_TELL}") from error


def _fork(boot: Boot, kept_fds: set[int], mask: SignalMask) -> TemplateConnection:
    """Start a template that is a copy of the host. kept_fds: connections that workers keep."""
    if native.in_subinterpreter():
        raise TemplateError(
            "this code runs in a subinterpreter of the host, and CPython cannot go on with one in a forked process. "
            "Use mp_context='spawn', which is the default, or the main interpreter."
        )

    def fork(connection: TemplateConnection, theirs: Socket, host: int, lifeline: int) -> int:
        requests = connection.tracker_requests.open()
        try:
            return launch.fork(theirs, host, lifeline, boot, connection, kept_fds, requests)
        finally:
            native.close(requests)

    try:
        wait = None if boot.handles == PIDFD else handshake.wait_for_template
        return _start_launcher(boot, mask, fork, Launcher("the forked host", START_TIMEOUT), wait)
    except interpreter.UnusableInterpreter as error:
        raise TemplateError(f"{error}. {_MAY_TELL}") from error


def _spawn_detached(boot: Boot, mask: SignalMask) -> TemplateConnection | None:
    """Start a template by a small program of the system. None: it has to be done by an interpreter."""
    program = interpreter.certain() if boot.handles == PIDFD else None
    if program is None:
        return None

    def spawn(connection: TemplateConnection, theirs: Socket, host: int, lifeline: int) -> int:
        try:
            return launch.spawn_detached(program, (theirs.fileno(), host, lifeline), connection.cookie)
        except OSError as error:
            raise interpreter.UnusableInterpreter(str(error)) from error

    try:
        launcher = Launcher(program, START_TIMEOUT, leads_group=True)
        return _start_launcher(boot, mask, spawn, launcher, None)
    except interpreter.UnusableInterpreter:
        return None  # the start by an interpreter tells what is wrong, if it does not work


def _spawn(boot: Boot, mask: SignalMask, program: str, is_last: bool) -> TemplateConnection:
    """Start a template in a fresh interpreter. Raises UnusableInterpreter, if the program is none."""

    def spawn(connection: TemplateConnection, theirs: Socket, host: int, lifeline: int) -> int:
        return launch.spawn(program, (theirs.fileno(), host, lifeline), boot.handles, connection.cookie)

    timeout = START_TIMEOUT if is_last else CANDIDATE_TIMEOUT
    launcher = Launcher(program, timeout, leads_group=True)
    return _start_launcher(boot, mask, spawn, launcher, handshake.wait_for_template)


def _start_launcher(
    boot: Boot,
    mask: SignalMask,
    make_process: Callable[[TemplateConnection, Socket, int, int], int],
    launcher: Launcher,
    wait: Callable[[TemplateConnection, Launcher, AbstractSet[int]], None] | None,
) -> TemplateConnection:
    """Start a launcher, wait as told, and return the host's connection to its template.

    wait: None: for nothing.
    make_process: makes the launcher's process, and returns its pid. Its arguments are the connection, the template's
        end of the channel, a descriptor that is readable once the host is gone, and the read end of the lifeline.
    """
    ours = theirs = connection = None
    watched: list[int] = []
    try:
        ours, theirs = channels.pair()
        read, lifeline = sentinel_pipe()
        connection = TemplateConnection(ours, boot.handles, lifeline)
        watched.append(read)
        host_fd = native.above_stdio(os.pidfd_open(os.getpid())) if boot.handles == PIDFD else native.duplicate(read)
        watched.append(host_fd)
        connection.runs_script = boot.runs_script
        # A signal handler may raise. If one did so before the launcher's number is stored, nobody could reap it.
        with hygiene.signals_blocked() as before:
            launcher.pid = make_process(connection, theirs, host_fd, read)
            theirs.close()
            # The launcher is a child of the host for a moment. SIGCHLD stays blocked until it is reaped, so that a
            # handler that runs waitpid(-1) on this thread finds nothing. On other threads nothing is blocked.
            if wait is None:
                handshake.expect_hello(connection, launcher)
            else:
                wait(connection, launcher, {*(before if mask is None else mask), signal.SIGCHLD})
    except BaseException:
        if connection is not None:
            _abandon(connection)
        elif ours is not None:
            ours.close()
        raise
    finally:
        if theirs is not None:
            theirs.close()
        for fd in watched:
            native.close(fd)
    return connection


def _abandon(connection: TemplateConnection) -> None:
    connection.close()
    connection.reap_launcher()
