"""What a new process must drop of the process it came from, before it does anything of its own.

Called in the launcher, the template and the workers only, on their only thread; nothing here ever runs in the host
but `signals_blocked`, `untraced`, `flush_output` and `is_open`. A forked process has its parent's signal handlers,
wakeup fd (an asyncio loop's, perhaps: a signal to the worker would be written into the host's loop), exit functions
and standard streams with what their buffers hold, and it may have copies of every descriptor.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import contextmanager, suppress

from pidfdpool.process import native
from pidfdpool.process.native import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io
    from collections.abc import Collection, Iterator
    from typing import Any

# CPython ignores these two from its start (Python/pylifecycle.c); workers ignore SIGINT, because Ctrl-C is for the
# host to decide upon.
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT)
_UNTOUCHABLE = (signal.SIGKILL, signal.SIGSTOP)

_abandoned: list[Any] = []


@contextmanager
def signals_blocked() -> Iterator[set[signal.Signals | int]]:
    """Block every signal in this thread, and restore its mask, which is what the block is given.

    A signal that arrives meanwhile is not lost: it waits, or another thread takes it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_session() -> None:
    """Leave the session of the host, so that its terminal's signals are not for us; or its process group at least."""
    try:
        os.setsid()
    except OSError:  # refused by a sandbox
        with suppress(OSError):
            os.setpgid(0, 0)


def lead_group() -> None:
    """Lead a process group of this process's own, by which it can be killed with all that it starts."""
    try:
        os.setpgid(0, 0)
    except OSError:  # refused by a sandbox
        with suppress(OSError):
            os.setsid()


def unblock_signals() -> None:
    """Let every signal through, whatever the host's thread had blocked."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def reset_signals() -> None:
    """Give every signal the disposition it has in a fresh interpreter, but for SIGINT, which is ignored.

    Call it with all signals blocked: a handler of the host must not run here even once.
    """
    signal.set_wakeup_fd(-1)
    faulthandler = sys.modules.get("faulthandler")
    for number in signal.valid_signals():
        if number in _UNTOUCHABLE:
            continue
        if faulthandler is not None:
            # Its handlers are not the signal module's, which does not know that they are there.
            with suppress(RuntimeError, ValueError):  # one of those that `enable` is for
                faulthandler.unregister(number)
        wanted = native.SIG_IGN if number in _IGNORED else native.SIG_DFL
        if native.get_signal(number) != wanted:
            with suppress(OSError, ValueError):  # a number that this libc keeps to itself
                native.set_signal(number, wanted)


@contextmanager
def untraced() -> Iterator[None]:
    """Have this thread's trace and profile functions not called, for a fork within the block.

    They belong to a debugger, a profiler or a coverage tool that watches the host, and run the user's code. In a
    forked process they might wait for a lock that some thread of the host was holding, or ask somebody for commands.

    Only what can be set again from here is taken away. A tool that is written in C may have set a function of C, with
    an object of its own that nobody can call, or that loses count of the frames if it is not told of some: it goes on
    until the forked process calls `stop_tracing`.
    """
    trace, profile = sys.gettrace(), sys.getprofile()
    trace, profile = trace if _is_function(trace) else None, profile if _is_function(profile) else None
    if profile is not None:
        sys.setprofile(None)
    if trace is not None:
        sys.settrace(None)
    try:
        yield
    finally:
        if trace is not None:
            sys.settrace(trace)
        if profile is not None:
            sys.setprofile(profile)


def _is_function(watching: Any) -> bool:
    """Return whether it is a function, or an object of a class with one for its calls; not an object of C's."""
    return callable(watching) and (hasattr(watching, "__name__") or hasattr(type(watching).__call__, "__code__"))


def stop_tracing() -> None:
    """Have nobody watch this process: see `untraced`. In a forked process, within its block, before anything else."""
    sys.setprofile(None)
    sys.settrace(None)
    import threading

    threading.settrace(None)  # type: ignore[arg-type, unused-ignore]
    threading.setprofile(None)
    monitoring = getattr(sys, "monitoring", None)  # Python 3.12
    if monitoring is not None:
        for tool in range(6):
            if monitoring.get_tool(tool) is not None:
                monitoring.set_events(tool, 0)
                # A tool may watch single functions, and there is no list of these. So nothing of its is called.
                for event in _single_events(monitoring):
                    monitoring.register_callback(tool, event, None)


def _single_events(monitoring: Any) -> list[int]:
    return [event for event in vars(monitoring.events).values() if isinstance(event, int) and event]


def close_inherited_descriptors(keep: Collection[int]) -> None:
    """Close what was open before the exec, in a process that has just begun with one; not those to keep.

    Whatever has come through an exec is not close-on-exec. The interpreter's own descriptors are. It may have some by
    now: of the file that `-X perf` writes to, of /dev/urandom, of what a .pth file has loaded. If one of these were
    closed here, whoever has opened it would write to what gets its number next, or close that.
    """
    for fd in _descriptors():
        with suppress(OSError):
            if fd not in keep and os.get_inheritable(fd):
                native.close(fd)


def give_up_connections(keep: Collection[int]) -> None:
    """Give up this copy of the host's connections and listening sockets, but for those to keep.

    A connection ends when its last copy is closed, and a port is free when nobody listens: with copies in here the
    host's peers would wait for an end that the host believes to have sent, as long as the pool lives, and a
    successor of the host would find its address in use. Nothing else is touched. Pipes, files, memory, datagram
    sockets and unnamed socket pairs (which multiprocessing's pipes are) may be what a task was promised by the fork.

    The numbers stay taken, by descriptors with which nothing can be done (O_PATH, open(2)). The host's objects were
    copied, too, believe that the numbers are theirs, and would one day close whatever was there instead.
    """
    import _socket  # not `socket`: a host may have replaced what is in there

    standard = [os.fstat(fd) for fd in (0, 1, 2) if is_open(fd)]
    # With a default timeout, to look at a socket would make it non-blocking, for the host as well.
    timeout = _socket.getdefaulttimeout()
    _socket.setdefaulttimeout(None)
    spent = os.open("/", os.O_PATH | os.O_CLOEXEC)
    for fd in _descriptors():
        with suppress(OSError):
            status = os.fstat(fd)
            if fd in keep or not stat.S_ISSOCK(status.st_mode):
                continue
            # A copy of a standard stream, which may be a connection to the system's journal, is for printing.
            if not any(os.path.samestat(status, stream) for stream in standard) and _is_connection(fd):
                os.dup2(spent, fd, inheritable=False)
    native.close(spent)
    _socket.setdefaulttimeout(timeout)


def _is_connection(fd: int) -> bool:
    """Return whether a socket is one end of a connection, or listens for them, or is about to."""
    import _socket

    end = _socket.socket(fileno=fd)
    try:
        if end.type not in (_socket.SOCK_STREAM, _socket.SOCK_SEQPACKET):
            return False
        if end.family != _socket.AF_UNIX:
            return end.family in (_socket.AF_INET, _socket.AF_INET6, getattr(_socket, "AF_VSOCK", None))
        if end.getsockname():
            return True
        try:
            return bool(end.getpeername())
        except OSError:  # it is not connected
            return False
    finally:
        end.detach()


def _descriptors() -> list[int]:
    """Return the numbers above the standard streams' that may be open."""
    try:
        return [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2]
    except OSError:  # no /proc, or one that keeps things from its users
        return list(range(3, 4096))


def occupy_standard_streams() -> None:
    """Put /dev/null where a standard stream is closed, and always on standard input.

    Otherwise the next descriptor that is opened would get that number, and be read from and printed to. Standard
    input belongs to the host alone: two readers would share its bytes at random.
    """
    for fd, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        if fd == 0 or not is_open(fd):
            opened = _open_nothing(mode)
            if opened != fd:
                os.dup2(opened, fd)
                native.close(opened)
            else:
                os.set_inheritable(fd, True)


def _open_nothing(mode: int) -> int:
    """Return a descriptor of /dev/null, or of what comes close where there is none, as in a bare chroot."""
    try:
        return os.open(os.devnull, mode)
    except OSError:
        # A pipe whose other end is closed: an end of file to whoever reads, and an error to whoever writes.
        reader, writer = os.pipe()
        kept, other = (reader, writer) if mode == os.O_RDONLY else (writer, reader)
        native.close(other)
        return kept


def is_open(fd: int) -> bool:
    """Return whether there is a descriptor of this number. Anywhere."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def renew_streams() -> None:
    """Make the streams that a forked process has copied usable: sys.stdout, sys.stderr and those that are logged to.

    A copy holds whatever the host had not flushed, which would come out twice, and perhaps a lock that some thread of
    the host was holding in the middle of a write, and that nobody would ever release: whoever prints or logs would
    hang. CPython renews the locks of logging's handlers after a fork (logging/__init__.py), but not those of the
    streams that they write to.

    The objects are made anew in place, which empties them and gives them another lock, because others hold them, too:
    handlers, `from sys import stdout`. Where that fails in the middle, a new object takes the place of the old one.
    Standard input is replaced, as it is /dev/null by now; its copy may be locked by a thread that reads.
    """
    import io

    streams = {id(stream): stream for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)}
    for stream in streams.values():
        with suppress(Exception):  # closed, or a notebook's or a test runner's own, which knows best
            if isinstance(stream, io.TextIOWrapper):
                _renew_text(stream)
    logging = sys.modules.get("logging")
    for reference in list(getattr(logging, "_handlerList", ())):
        written: Any = getattr(reference(), "stream", None)
        if written is not None and id(written) not in streams:
            with suppress(Exception):
                _renew_buffer(written.buffer)
    _abandoned.append(sys.stdin)
    sys.stdin = open(0, closefd=False, encoding="locale")  # noqa: SIM115  /dev/null by now


def _renew_text(stream: io.TextIOWrapper) -> None:
    import io

    fd = stream.fileno()
    encoding, errors = stream.encoding, stream.errors
    options: dict[str, Any] = {"encoding": encoding, "errors": errors}
    try:
        if _renew_buffer(stream.buffer):
            options |= {"line_buffering": stream.line_buffering, "write_through": stream.write_through}
            io.TextIOWrapper.__init__(stream, stream.buffer, **options)
    except Exception:
        fresh = open(fd, "w", closefd=False, buffering=1, encoding=encoding, errors=errors)  # noqa: SIM115
        for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
            if getattr(sys, name) is stream:
                setattr(sys, name, fresh)
        _abandoned.append(stream)


def _renew_buffer(buffer: Any) -> bool:
    """Empty a buffer that writes to a descriptor, and give it a lock that nobody holds; False: there is none."""
    import io

    if isinstance(buffer, io.BufferedWriter):
        io.BufferedWriter.__init__(buffer, buffer.raw)
    elif isinstance(buffer, io.BufferedRandom):
        io.BufferedRandom.__init__(buffer, buffer.raw)
    else:
        return False
    return True


def flush_output() -> None:
    """Write out what was printed; a stream that is closed, broken or strange is none of our business."""
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105  after every task, and `suppress` takes longer than the rest
            stream.flush()
        except Exception:
            pass


def start_faulthandler() -> None:
    """Have the Python stack written to standard error when native code crashes."""
    import faulthandler

    with suppress(Exception):  # no usable standard error
        faulthandler.enable(2)
