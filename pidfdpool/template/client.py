"""How the host starts a template.

Called in the host by the thread that carries out StartTemplate: the thread of the first submit, or the pool thread
when a template is replaced. `start` returns once the template has sent HELLO. That takes as long as an interpreter
takes to start (exec way), or a few ms (fork way). The launcher, which forked the template, is exiting by then, and
`TemplateConnection.reap_launcher` waits for its end; from then on the host has no child of ours.

The exec way is safe in a host with threads, because posix_spawn runs no code of the host's in the new process. The
fork way is as safe as os.fork() is in that host at that moment. So it happens once, and only where it was asked for.
"""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import TYPE_CHECKING

from pidfdpool.errors import TemplateError
from pidfdpool.pidfd import capabilities, sentinel_pipe
from pidfdpool.process import hygiene, native
from pidfdpool.serialization import inherited
from pidfdpool.template import handshake, interpreter, launch
from pidfdpool.template.connection import TemplateConnection
from pidfdpool.template.handshake import Launcher
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

START_TIMEOUT = 60.0  # seconds; an interpreter that has not answered by then is not going to
CANDIDATE_TIMEOUT = 15.0  # seconds; the same, where another program can be tried


class NotSendable(Exception):
    """The initializer, its arguments or the preload callable cannot be pickled; `__cause__` tells why."""


def start(recipe: Recipe, mask: SignalMask = None) -> TemplateConnection:
    """Start a template and return the host's connection to it. The caller has to call `reap_launcher`.

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
        connection = interpreter.start_first_usable(partial(_spawn, boot, mask))
        try:
            for fd in fds:
                connection.channel.send_nowait(framing.encode(framing.INHERITED), os.dup(fd))
            connection.channel.send_nowait(framing.encode(framing.BOOT, buffers=boot.dump()))
        except BaseException:
            _abandon(connection)
            raise
        return connection
    finally:
        for fd in fds:
            native.close(fd)


def _fork(boot: Boot, kept_fds: set[int], mask: SignalMask) -> TemplateConnection:
    """Start a template that is a copy of the host. kept_fds: connections that workers keep."""
    if native.in_subinterpreter():
        raise TemplateError(
            "this code runs in a subinterpreter of the host, and CPython cannot go on with one in a forked process. "
            "Use mp_context='spawn', which is the default, or the main interpreter."
        )

    def fork(connection: TemplateConnection, theirs: Socket, host: int, lifeline: int) -> int:
        return launch.fork(theirs, host, lifeline, boot, connection, kept_fds)

    try:
        return _start_launcher(boot, mask, fork, Launcher("the forked host", START_TIMEOUT))
    except interpreter.UnusableInterpreter as error:
        raise TemplateError(f"{error}. Its standard error may tell why.") from error


def _spawn(boot: Boot, mask: SignalMask, program: str, is_last: bool) -> TemplateConnection:
    """Start a template in a fresh interpreter. Raises UnusableInterpreter, if the program is none."""

    def spawn(connection: TemplateConnection, theirs: Socket, host: int, lifeline: int) -> int:
        return launch.spawn(program, (theirs.fileno(), host, lifeline), boot.handles, connection.cookie)

    timeout = START_TIMEOUT if is_last else CANDIDATE_TIMEOUT
    return _start_launcher(boot, mask, spawn, Launcher(program, timeout, leads_group=True))


def _start_launcher(
    boot: Boot,
    mask: SignalMask,
    make_process: Callable[[TemplateConnection, Socket, int, int], int],
    launcher: Launcher,
) -> TemplateConnection:
    """Start a launcher, and return the host's connection to its template when that has sent HELLO.

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
            # The launcher is a child of the host for a moment. Its SIGCHLD stays blocked until it is reaped, so that
            # a handler that runs waitpid(-1) on this thread finds nothing. On other threads nothing is blocked.
            handshake.wait_for_template(connection, launcher, {*(before if mask is None else mask), signal.SIGCHLD})
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
