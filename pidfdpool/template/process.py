"""The main program of the launcher and of the template that it leaves behind: everything up to the event loop.

The host starts the *launcher*, which forks the *template* and exits. So the template is no child of the host's, and
has a session of its own. The launcher is a program of the system (then `main` is called in the template), a fresh
interpreter (then `main` is called in the launcher), or a fork of the host (`launch`). The template then receives what
it has to know, runs the preload, and serves (`server`).

Launcher and template have one thread, and run no code of the user's but the preload and the script. So their forks
are safe, and the template always answers.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from contextlib import suppress

from pidfdpool.pidfd import prctl
from pidfdpool.process import exiting, hygiene, lifeline, native
from pidfdpool.process.native import signal
from pidfdpool.serialization import payload, scripts
from pidfdpool.template.server import Server
from pidfdpool.transport import frame_rules, framing
from pidfdpool.transport.channel import Channel
from pidfdpool.worker import script_module, shared_tracker
from pidfdpool.worker.boot import DETACHED, PIDFD, Boot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from pidfdpool.transport.framing import Frame


def main(arguments: list[str]) -> NoReturn:
    """Be the launcher, or the template itself, in a fresh interpreter (exec way).

    The arguments are `channel host lifeline handles cookie`.
    """
    channel, host, lifeline_fd = fds = tuple(map(int, arguments[:3]))
    is_template = arguments[3].startswith(DETACHED)
    if is_template:
        os.dup2(int(arguments[3].removeprefix(DETACHED)), 2)  # standard error, which the launcher did not get
    hygiene.close_inherited_descriptors(keep=fds)
    for fd in fds:
        native.set_close_on_exec(fd)
    cookie = framing.cookie_bytes(int(arguments[4]))
    if is_template:
        launch(channel, host, lifeline_fd, PIDFD, cookie, is_template=True)
    launch(channel, host, lifeline_fd, arguments[3], cookie, is_awaited=True)


def launch(
    channel_fd: int,
    host_fd: int,
    lifeline_fd: int,
    handles: str,
    cookie: bytes,
    boot: Boot | None = None,
    close_copies: Callable[[], None] | None = None,
    *,
    is_template: bool = False,
    is_awaited: bool = False,
) -> NoReturn:
    """Fork the template and exit.

    is_template: this process was forked already, and is the template.
    is_awaited: the host waits for the template before it waits for the launcher's exit. Then the template reports the
        launcher to the host. So the launcher has nothing to do but to exit quickly.
    host_fd: readable once the host is gone: its pidfd, or in the fallback another read end of the lifeline.
    boot, close_copies: in the fork way only: what otherwise comes over the channel, and a call that closes the copies
        of the host's connections in the template.
    """
    status = 1
    try:
        channel = Channel(native.socket_of(channel_fd), frame_rules.TO_TEMPLATE, descriptors=True, send_cookie=cookie)
        launcher, handle_fds = os.getpid(), _open_own_handle(handles) if is_awaited else []
        with hygiene.signals_blocked():
            if is_template or not _fork_template(channel, handle_fds):
                if is_awaited:
                    channel.send(framing.encode(framing.LAUNCHED, value=launcher), handle_fds[0])
                for fd in handle_fds:
                    native.close(fd)
                _run_template(channel, host_fd, lifeline_fd, handles, boot, close_copies)
        status = 0
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the host is gone, or has abandoned the start
    except BaseException:
        import traceback

        traceback.print_exc()  # the host can only see that the channel is closed
    finally:
        os._exit(status)


def _open_own_handle(handles: str) -> list[int]:
    """Return descriptors that report the end of this process.

    The first one is readable once this process is gone. The others have to stay open here until then.
    """
    if handles == PIDFD:
        return [os.pidfd_open(os.getpid())]
    from pidfdpool.pidfd import sentinel_pipe

    return list(sentinel_pipe())


def _fork_template(channel: Channel, handle_fds: list[int]) -> int:
    """Fork; where there can be no more processes, report that to the host and exit."""
    try:
        return native.fork()
    except OSError as error:
        if handle_fds:
            channel.send(framing.encode(framing.LAUNCHED, value=os.getpid()), handle_fds[0])
        channel.send(framing.encode(framing.SPAWN_FAILED, value=error.errno or errno.EAGAIN))
        os._exit(1)


def _run_template(
    channel: Channel,
    host_fd: int,
    lifeline_fd: int,
    handles: str,
    boot: Boot | None,
    close_copies: Callable[[], None] | None,
) -> None:
    """Be the template, until the host is gone or says STOP. Called with all signals blocked. Arguments as `launch`.

    Raises:
        EOFError: the host is gone.
    """
    handle_fds = _open_own_handle(handles)
    # This comes first, because the host has work to do when it reads it, and does that while this process goes on.
    channel.send(framing.encode(framing.HELLO, value=os.getpid()), handle_fds[0])
    native.close(handle_fds[0])
    if boot is None:
        script_module.keep_signals()
    hygiene.reset_signals()
    hygiene.leave_session()
    lifeline.signal_me_at_end(lifeline_fd, signal.SIGCONT)
    if handles != PIDFD:
        # The host cannot signal this process. So whatever the host writes wakes this process if it is stopped.
        lifeline.signal_me_at_end(channel.fileno(), signal.SIGCONT)
    if close_copies is not None:
        close_copies()
    hygiene.occupy_standard_streams()  # before any module is loaded that keeps a descriptor open
    with suppress(OSError):  # refused by a sandbox: processes that leave their worker's process group are not found
        prctl.set_child_subreaper(True)
    prctl.set_name("pidfd-template")
    requests: list[Frame] = []
    if boot is None:
        boot, requests = _receive_boot(channel)
        sys.argv[:] = boot.argv
    else:
        hygiene.renew_streams()
        exiting.discard_inherited()
    hygiene.unblock_signals()
    if _prepare(channel, boot, host_fd):
        channel.send(framing.encode(framing.BOOTED))
        Server(channel, boot, host_fd, lifeline_fd, handle_fds[1:]).run(requests)


def _receive_boot(channel: Channel) -> tuple[Boot, list[Frame]]:
    """Return what the host tells this template, and the requests that came along with it."""
    descriptors: list[int] = []
    requests: list[Frame] = []
    boot: Boot | None = None
    while boot is None:
        for frame in channel.receive():
            if frame.kind == framing.INHERITED:
                fd = channel.next_descriptor()
                if fd is None:
                    raise OSError(errno.EMFILE, "no descriptor number left for what workers inherit")
                descriptors.append(fd)
            elif frame.kind == framing.TRACKER_REQUESTS:
                fd = channel.next_descriptor()
                if fd is not None:
                    shared_tracker.install(fd)
            elif frame.kind == framing.BOOT:
                boot = Boot.load(frame.buffers, descriptors)
                if boot.script is not None:
                    script_module.install(scripts.Script(*boot.script))
            else:
                requests.append(frame)
    return boot, requests


def _prepare(channel: Channel, boot: Boot, host_fd: int) -> bool:
    """Run the preload, and load what workers need.

    Return whether that succeeded. Otherwise the host is told, and no other template would do better.
    """
    collects = boot.forked or boot.has_preload  # the user's code decides whether there are garbage collections
    try:
        boot.limit_threads()
        if boot.has_preload:
            from pidfdpool.template import guard

            if not boot.forked:
                _enable_collections()
            guard.run_preload(boot, host_fd)
    except BaseException as error:
        from pidfdpool.worker import tracebacks

        buffers = payload.dump_error(tracebacks.cut(error), payload.ReceivedMain())
        channel.send(framing.encode(framing.PRELOAD_FAILED, buffers=buffers))
        return False
    hygiene.flush_output()
    import faulthandler  # noqa: F401  every worker needs these two, so they are loaded once for all
    import mmap  # noqa: F401

    __import__(boot.program[0])
    if boot.logs is not None:
        import pidfdpool.worker.log_forwarding
    if boot.has_initializer:
        import pidfdpool.template.late_imports  # noqa: F401
    from pidfdpool.worker import identity

    identity.prepare()
    # What is there now is shared with every worker. A garbage collection in a worker would touch it, and the kernel
    # would copy its pages.
    if collects:
        gc.freeze()
    else:
        _enable_collections()
    return True


def _enable_collections() -> None:
    """Enable garbage collections, without which this interpreter was started. The first would come at once."""
    gc.freeze()
    gc.enable()
