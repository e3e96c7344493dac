"""How the host starts a template.

Called by whichever thread carries out StartTemplate: the thread of the first submit, or the pool thread when a
template is replaced. `start` returns once the template has said hello, which takes as long as an interpreter takes to
start (exec way), or a few ms (fork way). The launcher, which forked it, is on its way out by then, and
`HostEnd.see_launcher_off` waits for its end; from then on the host has no child of ours.

The exec way is safe in a host with threads: posix_spawn runs nothing of the host's in the new process. The fork way
is as safe as os.fork() is in that host at that moment, which is why it happens once and only where it was asked for.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pidfdpool import channel as channels
from pidfdpool import grammar, hygiene, inheritance, native, payload, scripts, wire
from pidfdpool.errors import TemplateError
from pidfdpool.pidfd import Pidfd, PidfdDenied, SentinelHandle, capabilities, sentinel_pipe
from pidfdpool.template import interpreter, launching
from pidfdpool.template.boot import PIDFD, SENTINEL, Boot

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet
    from typing import TypeAlias

    from pidfdpool.pidfd import ProcessHandle

    SignalMask: TypeAlias = AbstractSet[int] | None

START_TIMEOUT = 60.0  # seconds; an interpreter that is not up by then is not going to be
LEAVING = 5.0  # seconds that a launcher has for its end, which takes it a millisecond


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
                initializer, fds = inheritance.capture(initializer)
            for buffers in (call, initializer):
                if buffers is not None and payload.needs_script(buffers):
                    self.runs_script = True
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
        )
        return boot, fds


def _needs_fork(initializer: object) -> bool:
    """Return whether the initializer's arguments can be shared by a fork only."""
    if initializer is None or "multiprocessing.synchronize" not in sys.modules:
        return False
    try:
        _, fds = inheritance.capture(initializer)
    except inheritance.NeedsFork:
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
    """The host's end of a template: its channel, its handle, and what only the fallback needs."""

    def __init__(self, channel: channels.Channel, handles: str, lifeline: int | None) -> None:
        self.channel = channel
        self.handles = handles
        self.handle: ProcessHandle | None = None
        self.launcher: ProcessHandle | None = None  # until `see_launcher_off`
        self.runs_script = False  # the template was told to run the script again
        self.early: list[wire.Frame] = []  # came in with the greeting, for the pool thread to serve
        self._lifeline = lifeline  # the fallback's sign that the host is alive: held open by the host alone

    @property
    def pid(self) -> int | None:
        """The template's number, for people."""
        return None if self.handle is None else self.handle.pid

    def close(self) -> None:
        """Close every descriptor of the host's that belongs to this template."""
        self.channel.close()
        if self.handle is not None:
            self.handle.close()
        self._close_lifeline()

    def close_in_forked_child(self) -> None:
        """Close the copies of a process that was forked from the host."""
        self.channel.close()
        for handle in (self.handle, self.launcher):
            if handle is not None:
                handle.close_in_forked_child()
        self._close_lifeline()

    def see_launcher_off(self) -> None:
        """Wait for the end of the launcher, which is on its way out, and reap it. Handlers do not interrupt this."""
        launcher, self.launcher = self.launcher, None
        if launcher is not None:
            with hygiene.signals_blocked():
                _reap(launcher, time.monotonic() + LEAVING)
                launcher.close()

    def _close_lifeline(self) -> None:
        if self._lifeline is not None:
            native.close(self._lifeline)
            self._lifeline = None

    def worker_handle(self, fd: int, pid: int, slot: int, generation: int) -> ProcessHandle:
        """Wrap the descriptor that came with SPAWNED. Where we cannot signal, the template does it for us."""

        def deliver(number: int, _group: bool) -> None:  # it always means the whole group
            self.channel.post(wire.encode(wire.SIGNAL, slot, generation, number))

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
    ours = theirs = link = None
    watched: list[int] = []
    try:
        ours, theirs = channels.pair()
        lifeline = None
        if handles == PIDFD:
            watched.append(native.above_stdio(os.pidfd_open(os.getpid())))
        else:
            read, lifeline = sentinel_pipe()
            watched.append(read)
        link = HostEnd(channels.Channel(ours, grammar.FROM_TEMPLATE, descriptors=True), handles, lifeline)
        link.runs_script = boot.runs_script
        # A handler may raise. If it did so before the launcher's number is noted down, nobody could reap that.
        with hygiene.signals_blocked() as before:
            if recipe.fork:
                program = "the forked host"
                handed_over = inheritance.descriptors_of(recipe.initializer[1] if recipe.initializer else ())
                pid = launching.fork(theirs, watched[0], boot, link, handed_over)
            else:
                program = interpreter.find()
                pid = launching.spawn(program, theirs.fileno(), watched[0], handles)
            theirs.close()
            # The launcher is a child of the host for a moment. Its SIGCHLD waits until it is reaped, so that a
            # handler that runs waitpid(-1) on this thread finds nothing. On other threads nothing is held back.
            _shake_hands(link, pid, program, {*(before if mask is None else mask), signal.SIGCHLD})
        if not recipe.fork:
            for fd in fds:
                link.channel.post(wire.encode(wire.INHERIT), os.dup(fd))
            link.channel.post(wire.encode(wire.BOOT, buffers=boot.dump()))
    except BaseException:
        if link is not None:
            link.close()
            link.see_launcher_off()
        elif ours is not None:
            ours.close()
        raise
    finally:
        if theirs is not None:
            theirs.close()
        for fd in (*watched, *fds):
            native.close(fd)
    return link


def _shake_hands(link: HostEnd, launcher: int, program: str, mask: AbstractSet[int]) -> None:
    """Wait until the template has said hello. Handlers may interrupt this; then the launcher is reaped."""
    deadline = time.monotonic() + START_TIMEOUT
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        poller = native.poll()
        poller.register(link.channel.fileno(), select.POLLIN)
        while link.handle is None:
            if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TemplateError(f"{program} did not start a template within {START_TIMEOUT:g} s")
            for frame in _received(link, program):
                if frame.kind == wire.SPAWN_FAILED:
                    raise OSError(frame.value, f"{program} could not fork the template: {os.strerror(frame.value)}")
                if frame.kind not in (wire.LAUNCHED, wire.HELLO):
                    link.early.append(frame)
                    continue
                fd = link.channel.descriptor()
                if fd is None:
                    raise OSError(errno.EMFILE, "no descriptor number left for the template's pidfd")
                handle = _handle(link.handles, fd, frame.value)
                if frame.kind == wire.LAUNCHED:
                    link.launcher = handle
                else:
                    link.handle = handle
    except (EOFError, ConnectionResetError) as error:
        status = _reap_unwanted(link, launcher, deadline)
        raise TemplateError(
            f"{program}, started as the pool's template, ended before it was ready: {status}. Its standard error "
            "may say why. If it is not a Python interpreter, name one with multiprocessing.set_executable()."
        ) from error
    except BaseException:
        # The host must not be left with a child. This one leaves when it sees that nobody listens any more.
        with hygiene.signals_blocked():
            link.channel.close()
            _reap_unwanted(link, launcher, min(deadline, time.monotonic() + LEAVING))
        raise


def _received(link: HostEnd, program: str) -> list[wire.Frame]:
    try:
        return link.channel.receive_now()
    except wire.WireError as error:
        raise TemplateError(f"{program}, started as the pool's template, wrote {error}") from error


def _reap_unwanted(link: HostEnd, launcher: int, deadline: float) -> object:
    """Reap the launcher of a start that came to nothing, and return how it ended."""
    passing, link.launcher = link.launcher or _named(launcher), None
    try:
        return _reap(passing, deadline)
    finally:
        if passing is not None:
            passing.close()


def _named(launcher: int) -> ProcessHandle | None:
    """Return a handle of a launcher that never spoke, so that its number is all there is; None: it is gone.

    Whoever it may name by now, only a child of the host that has ended can be affected, and only by being reaped.
    """
    with suppress(OSError):
        return Pidfd.open(launcher)
    return None


def _handle(handles: str, fd: int, pid: int) -> ProcessHandle:
    if handles == PIDFD:
        return Pidfd.from_fd(fd, pid)
    return SentinelHandle(fd, pid, _cannot_signal)


def _cannot_signal(_number: int, _group: bool) -> None:
    raise AssertionError("the template and the launcher are told to leave, never signalled")


def _reap(handle: ProcessHandle | None, deadline: float) -> object:
    """Wait for a process that is about to end, and reap it if nobody else has."""
    if handle is None:
        return "exit status unknown"
    poller = native.poll()
    poller.register(handle.fileno(), select.POLLIN)
    poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
    if isinstance(handle, Pidfd):
        return handle.exit_status()
    # Without pidfds its number is all there is. The pipe closes a little before the process can be waited for.
    while time.monotonic() < deadline:
        try:
            if os.waitid(os.P_PID, handle.pid, os.WEXITED | os.WNOHANG) is not None:
                break
        except ChildProcessError:
            break
        native.sleep(0.001)
    return "exit status unknown"
