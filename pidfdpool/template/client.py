"""How the host starts a template.

Called by whichever thread carries out StartTemplate: the thread of the first submit, or the pool thread when a
template is replaced. `start` returns once the template has said hello, which takes as long as an interpreter takes to
start (exec way), or a few ms (fork way). The launcher, which forked it, is on its way out by then, and
`HostEnd.see_launcher_off` waits for its end; from then on the host has no child of ours.

The exec way is safe in a host with threads: posix_spawn runs nothing of the host's in the new process. The fork way
is as safe as os.fork() is in that host at that moment, which is why it happens once and only where it was asked for.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from pidfdpool.errors import TemplateError
from pidfdpool.pidfd import Pidfd, PidfdDenied, SentinelHandle, capabilities, sentinel_pipe
from pidfdpool.process import hygiene, native
from pidfdpool.serialization import inherited, payload, picklers, preparation, scripts
from pidfdpool.template import handshake, interpreter, launch
from pidfdpool.template.handshake import Launcher
from pidfdpool.transport import channel as channels
from pidfdpool.transport import frame_rules, framing
from pidfdpool.worker.boot import PIDFD, SENTINEL, Boot

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet
    from typing import TypeAlias

    from pidfdpool.pidfd import ProcessHandle
    from pidfdpool.process.native import Socket

    SignalMask: TypeAlias = AbstractSet[int] | None

START_TIMEOUT = 60.0  # seconds; an interpreter that is not up by then is not going to be
PATIENCE = 15.0  # the same, where there is another program to be tried


class NotSendable(Exception):
    """The initializer, its arguments or the preload callable cannot be pickled; `__cause__` says why."""


class Recipe:
    """What a pool's templates are made of; the same for each of them.

    way: "exec", "fork", or "any": exec, unless the initializer's arguments can only be inherited by a fork.
    """

    def __init__(
        self,
        *,
        way: str,
        preload: tuple[str, ...],
        preload_call: Callable[[], object] | None,
        initializer: tuple[Callable[..., object], tuple[Any, ...]] | None,
        watch_memory: bool = False,
        capture_stderr: bool = False,
        spin: float = 0.0,
    ) -> None:
        self.fork = way == "fork" or (way == "any" and _needs_fork(initializer))
        self.preload = preload
        self.preload_call = preload_call
        self.initializer = initializer
        self.watch_memory = watch_memory
        self.capture_stderr = capture_stderr
        self.spin = spin
        self.runs_script = False  # some call needs what running the host's script again makes
        # What `__main__` holds now will be in the workers, too, if the template is forked from here.
        self.shared_main = payload.SharedMain(sys.modules.get("__main__")) if self.fork else None

    def boot(self, handles: str) -> tuple[Boot, list[int]]:
        """Return what the template is told, and the descriptors it needs, which the caller owns."""
        fds: list[int] = []
        call: Any = self.preload_call
        initializer: Any = self.initializer
        if not self.fork:
            call = payload.dumps(call) if call is not None else None
            if initializer is not None:
                initializer, fds = inherited.capture(initializer)
            for buffers in (call, initializer):
                if buffers is not None and payload.needs_script(buffers):
                    self.runs_script = True
        if picklers.shared_resources:
            picklers.pop_shared_resources()  # it stays, for each template that is to come
        from multiprocessing import process

        me = process.current_process()
        boot = Boot(
            handles=handles,
            host_pid=os.getpid(),
            host_name=me.name,
            argv=list(sys.argv),
            authkey=bytes(me.authkey),
            preload=self.preload,
            forked=self.fork,
            preload_call=call,
            initializer=initializer,
            watch_memory=self.watch_memory,
            capture_stderr=self.capture_stderr,
            spin=self.spin,
            script=None if self.fork else scripts.current().as_fields(),
            runs_script=self.runs_script and not self.fork,
            preparation=None if self.fork else preparation.capture(),
        )
        return boot, fds


def _needs_fork(initializer: object) -> bool:
    """Return whether the initializer's arguments can be shared by a fork only."""
    if initializer is None or "multiprocessing.synchronize" not in sys.modules:
        return False
    try:
        _, fds = inherited.capture(initializer)
    except inherited.NeedsFork:
        return True
    except Exception:
        return False  # the start will say what is wrong with them
    for fd in fds:
        native.close(fd)
    return False


class _WorkerPidfd(Pidfd):
    """A worker's pidfd.

    A host may give up its privileges, by setuid(2), when its workers are there. It may signal them no more, and could
    end neither them nor their tasks. The template is as they are, so it is asked to.
    """

    deliver: Callable[[int, bool], None]

    def send_signal(self, sig: int, value: int | None = None, *, group: bool = False) -> None:
        """Send a signal, or have the template send it to the whole group."""
        try:
            super().send_signal(sig, value, group=group)
        except PidfdDenied:
            self.deliver(sig, group)


class HostEnd:
    """The host's end of a template: its channel, its handle, and the lifeline.

    lifeline: the write end of a pipe, held open by the host alone; see `lifeline`.
    """

    def __init__(self, end: Socket, handles: str, lifeline: int) -> None:
        self.seal = int.from_bytes(os.urandom(4)) or 1  # see `wire.seal_of`: a preload may write into any descriptor
        sealed = framing.seal_of(self.seal)
        self.channel = channels.Channel(end, frame_rules.FROM_TEMPLATE, descriptors=True, sealed=sealed)
        self.handles = handles
        self.handle: ProcessHandle | None = None
        self.launcher: ProcessHandle | None = None  # until `see_launcher_off`
        self.runs_script = False  # the template was told to run the script again
        self.early: list[framing.Frame] = []  # came in with the greeting, for the pool thread to serve
        self._lifeline: int | None = lifeline

    @property
    def pid(self) -> int | None:
        """The template's number, for people."""
        return None if self.handle is None else self.handle.pid

    def close(self) -> None:
        """Close every descriptor of the host's that belongs to this template."""
        self.channel.close()
        if self.handle is not None:
            self.handle.close()
        self.cut_lifeline()

    def close_in_forked_child(self) -> None:
        """Close the copies of a process that was forked from the host."""
        self.channel.close()
        for handle in (self.handle, self.launcher):
            if handle is not None:
                handle.close_in_forked_child()
        self.cut_lifeline()

    def see_launcher_off(self) -> None:
        """Wait for the end of the launcher, which is on its way out, and reap it. Handlers do not interrupt this."""
        launcher, self.launcher = self.launcher, None
        if launcher is not None:
            with hygiene.signals_blocked():
                handshake.reap(launcher, time.monotonic() + handshake.LEAVING)
                launcher.close()

    def cut_lifeline(self) -> None:
        """Close the write end: the kernel wakes the template, if it is stopped, and kills its workers."""
        if self._lifeline is not None:
            native.close(self._lifeline)
            self._lifeline = None

    def worker_handle(self, fd: int, pid: int, slot: int, generation: int) -> ProcessHandle:
        """Wrap the descriptor that came with SPAWNED. Where we cannot signal, the template does it for us."""

        def deliver(number: int, _group: bool) -> None:  # it always means the whole group
            self.channel.post(framing.encode(framing.SIGNAL, slot, generation, number))

        if self.handles == PIDFD:
            handle = _WorkerPidfd.from_fd(fd, pid)
            handle.deliver = deliver
            return handle
        return SentinelHandle(fd, pid, deliver)


def start(recipe: Recipe, mask: SignalMask = None) -> HostEnd:
    """Start a template and return the host's end of it. The caller has to see the launcher off.

    mask: what is to be blocked while this waits for the template. For a caller that has blocked all signals, and lets
        handlers interrupt the one thing in here that takes time. Default: what is blocked already.

    Raises:
        TemplateError: the process ended or stayed silent; the message says which program it was.
        OSError: the kernel refused (no process, descriptor or memory left; no such program).
        NotSendable: the initializer, its arguments or the preload callable cannot be pickled (exec way).
        BaseException: a handler raised it; nothing is left of what was begun.
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
        link = interpreter.first_to_answer(partial(_spawn, boot, mask))
        try:
            for fd in fds:
                link.channel.post(framing.encode(framing.INHERIT), os.dup(fd))
            link.channel.post(framing.encode(framing.BOOT, buffers=boot.dump()))
        except BaseException:
            _give_up(link)
            raise
        return link
    finally:
        for fd in fds:
            native.close(fd)


def _fork(boot: Boot, handed_over: set[int], mask: SignalMask) -> HostEnd:
    """Start a template that is a copy of the host."""
    if native.in_subinterpreter():
        raise TemplateError(
            "this code runs in a subinterpreter of the host, and CPython cannot go on with one in a forked process. "
            "Use mp_context='spawn', which is the default, or the main interpreter."
        )

    def fork(link: HostEnd, theirs: Socket, host: int, lifeline: int) -> int:
        return launch.fork(theirs, host, lifeline, boot, link, handed_over)

    try:
        return _begin(boot, mask, fork, Launcher("the forked host", START_TIMEOUT))
    except interpreter.Unfit as error:
        raise TemplateError(f"{error}. Its standard error may say why.") from error


def _spawn(boot: Boot, mask: SignalMask, program: str, is_last: bool) -> HostEnd:
    """Start a template in a fresh interpreter. Raises Unfit, if the program is none."""

    def spawn(link: HostEnd, theirs: Socket, host: int, lifeline: int) -> int:
        return launch.spawn(program, (theirs.fileno(), host, lifeline), boot.handles, link.seal)

    return _begin(boot, mask, spawn, Launcher(program, START_TIMEOUT if is_last else PATIENCE, leads_group=True))


def _begin(
    boot: Boot, mask: SignalMask, make: Callable[[HostEnd, Socket, int, int], int], launcher: Launcher
) -> HostEnd:
    """Have a launcher made, and return the host's end of the template when that has said hello.

    make: makes the process, of the link, the other end of its channel, what is readable once the host is gone, and
        the read end of the lifeline.
    """
    ours = theirs = link = None
    watched: list[int] = []
    try:
        ours, theirs = channels.pair()
        read, lifeline = sentinel_pipe()
        link = HostEnd(ours, boot.handles, lifeline)
        watched.append(read)
        of_host = native.above_stdio(os.pidfd_open(os.getpid())) if boot.handles == PIDFD else native.duplicate(read)
        watched.append(of_host)
        link.runs_script = boot.runs_script
        # A handler may raise. If it did so before the launcher's number is noted down, nobody could reap that.
        with hygiene.signals_blocked() as before:
            launcher.pid = make(link, theirs, of_host, read)
            theirs.close()
            # The launcher is a child of the host for a moment. Its SIGCHLD waits until it is reaped, so that a
            # handler that runs waitpid(-1) on this thread finds nothing. On other threads nothing is held back.
            handshake.shake_hands(link, launcher, {*(before if mask is None else mask), signal.SIGCHLD})
    except BaseException:
        if link is not None:
            _give_up(link)
        elif ours is not None:
            ours.close()
        raise
    finally:
        if theirs is not None:
            theirs.close()
        for fd in watched:
            native.close(fd)
    return link


def _give_up(link: HostEnd) -> None:
    link.close()
    link.see_launcher_off()
