"""Removes what a new process has inherited from its parent, before it does anything of its own.

Called in the launcher, the template and the workers, on their only thread. Only `signals_blocked`, `untraced`,
`flush_output` and `is_open` are called in the host, too, on any thread.

A forked process has its parent's signal handlers, exit functions, standard streams with the contents of their
buffers, and perhaps copies of every descriptor. It has its wakeup fd as well: if that belongs to an asyncio loop of
the host, a signal to the worker would be written into the host's loop.
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
    from collections.abc import Collection, Iterable, Iterator
    from typing import Any

# CPython ignores the first two from its start (Python/pylifecycle.c). Workers ignore SIGINT, because the host decides
# what Ctrl-C does.
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT)
_FIXED = (signal.SIGKILL, signal.SIGSTOP)  # their disposition cannot be changed

_abandoned: list[Any] = []  # streams that are replaced; kept alive, because their finalizers would flush or close


class _SignalsBlocked:
    """What `signals_blocked` returns.

    It is no generator: if a handler interrupted its end, the collector would end it later, and then restore a mask
    that is no longer right, perhaps in another thread.
    """

    __slots__ = ("_before",)

    def __enter__(self) -> set[signal.Signals | int]:
        self._before = before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        except BaseException:  # it runs the handler of a signal that came just before, after it has blocked all
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            raise
        return before

    def __exit__(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)


def signals_blocked() -> _SignalsBlocked:
    """Block every signal in this thread, in a `with` block that is given the mask before, and restore that.

    A signal that arrives meanwhile is not lost: it stays pending, or another thread takes it.
    """
    return _SignalsBlocked()


def leave_session() -> None:
    """Leave the host's session, or at least its process group, so that its terminal does not signal this process."""
    try:
        os.setsid()
    except OSError:  # refused by a sandbox
        with suppress(OSError):
            os.setpgid(0, 0)


def lead_group() -> None:
    """Become the leader of a process group, by which this process can be killed together with all that it starts."""
    try:
        os.setpgid(0, 0)
    except OSError:  # refused by a sandbox
        with suppress(OSError):
            os.setsid()


def unblock_signals(held: Iterable[int] = ()) -> None:
    """Unblock every signal but those that are held, whatever the host's thread had blocked."""
    signal.pthread_sigmask(signal.SIG_SETMASK, held)


def reset_signals() -> None:
    """Give every signal its disposition in a fresh interpreter, except for SIGINT, which is ignored.

    Call it with all signals blocked, because a handler of the host must not run here even once.
    """
    signal.set_wakeup_fd(-1)
    faulthandler = sys.modules.get("faulthandler")
    for number in signal.valid_signals():
        if number in _FIXED:
            continue
        if faulthandler is not None:
            # The signal module does not know of faulthandler's handlers.
            with suppress(RuntimeError, ValueError):  # a signal that `faulthandler.enable` handles
                faulthandler.unregister(number)
        wanted = native.SIG_IGN if number in _IGNORED else native.SIG_DFL
        if native.get_signal(number) != wanted:
            with suppress(OSError, ValueError):  # a number that this libc reserves
                native.set_signal(number, wanted)


@contextmanager
def untraced() -> Iterator[None]:
    """Have this thread's trace and profile functions not called, for a fork within the block.

    They belong to a debugger, a profiler or a coverage tool that watches the host, and run the user's code. In a
    forked process they might wait for a lock that some thread of the host was holding, or ask somebody for commands.

    Only functions that can be set again from Python are removed. A tool that is written in C may have set a C
    function with an object that is not callable, or that miscounts the frames if some calls are not reported to it.
    Such a tool continues until the forked process calls `stop_tracing`.
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


def _is_function(tracer: Any) -> bool:
    """Return whether it is a function, or an object whose `__call__` is a Python function; not an object of C's."""
    return callable(tracer) and (hasattr(tracer, "__name__") or hasattr(type(tracer).__call__, "__code__"))


def stop_tracing() -> None:
    """Remove all trace and profile functions. In a forked process, first of all, within the block of `untraced`."""
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
                # A tool may monitor single functions, and there is no list of these. So its callbacks are removed.
                for event in _single_events(monitoring):
                    monitoring.register_callback(tool, event, None)


def _single_events(monitoring: Any) -> list[int]:
    return [event for event in vars(monitoring.events).values() if isinstance(event, int) and event]


def close_inherited_descriptors(keep: Collection[int]) -> None:
    """Close the descriptors that were open before the exec, except those to keep. At the start of a new program.

    Descriptors that an exec has passed on are not close-on-exec, while those that the interpreter has opened are. It
    may have opened some already: of the file that `-X perf` writes to, of /dev/urandom, of a module that a .pth file
    has loaded. If one of these were closed here, its owner would write to the file that gets its number next, or
    close that.
    """
    # That of `-X perf_jit` is not close-on-exec (CPython, Python/perf_jit_trampoline.c). Its name tells whose it is.
    own_dump = f"/jit-{os.getpid()}.dump" if getattr(sys, "is_stack_trampoline_active", bool)() else None
    for fd in inheritable_descriptors():
        with suppress(OSError):
            if fd not in keep:
                if own_dump is not None and os.readlink(f"/proc/self/fd/{fd}").endswith(own_dump):
                    continue
                native.close(fd)


def inheritable_descriptors() -> list[int]:
    """Return the descriptors above 2 that a program would get which this process starts."""
    found = []
    for fd in _descriptors():
        with suppress(OSError):
            if os.get_inheritable(fd):
                found.append(fd)
    return found


def close_connections(keep: Collection[int]) -> None:
    """Close this process's copies of the host's connections and listening sockets, except those to keep.

    A connection ends when its last copy is closed, and a port is free when its last listening copy is closed. With
    copies here the host's peers would not see the end that the host has sent, as long as the pool lives, and a
    successor of the host would find its address in use. Nothing else is closed. Tasks may rely on pipes, files,
    memory, datagram sockets and unnamed socket pairs (which multiprocessing's pipes are), because they were forked.

    The numbers stay in use, by descriptors that allow no operation (O_PATH, open(2)). The host's objects were copied,
    too. They still hold these numbers, and would one day close the file that has the number then.
    """
    import _socket  # not `socket`: a host may have replaced what is in there

    standard = [os.fstat(fd) for fd in (0, 1, 2) if is_open(fd)]
    # With a default timeout, to make a socket object would make the socket non-blocking, for the host as well.
    timeout = _socket.getdefaulttimeout()
    _socket.setdefaulttimeout(None)
    placeholder = os.open("/", os.O_PATH | os.O_CLOEXEC)
    for fd in _descriptors():
        with suppress(OSError):
            status = os.fstat(fd)
            if fd in keep or not stat.S_ISSOCK(status.st_mode):
                continue
            # A copy of a standard stream is kept for printing. It may be a connection to the system's journal.
            if not any(os.path.samestat(status, stream) for stream in standard) and _is_connection(fd):
                os.dup2(placeholder, fd, inheritable=False)
    native.close(placeholder)
    _socket.setdefaulttimeout(timeout)


def _is_connection(fd: int) -> bool:
    """Return whether a socket is one end of a connection, listens for connections, or may do so later."""
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
    """Return the numbers above 2 that may be open."""
    try:
        return [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2]
    except OSError:  # no /proc, or access to it is restricted
        return list(range(3, 4096))


def occupy_standard_streams() -> None:
    """Open /dev/null in place of a standard stream that is closed, and always as standard input.

    Otherwise the next descriptor that is opened would get that number, and would be read from and printed to.
    Standard input belongs to the host alone, because two readers would share its bytes at random.
    """
    for fd, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        if fd == 0 or not is_open(fd):
            opened = _open_null(mode)
            if opened != fd:
                os.dup2(opened, fd)
                native.close(opened)
            else:
                os.set_inheritable(fd, True)


def _open_null(mode: int) -> int:
    """Return a descriptor of /dev/null, or the nearest thing to it where there is none, as in a bare chroot."""
    try:
        return os.open(os.devnull, mode)
    except OSError:
        # A pipe whose other end is closed: a reader gets an end of file, and a writer gets an error.
        reader, writer = os.pipe()
        kept, other = (reader, writer) if mode == os.O_RDONLY else (writer, reader)
        native.close(other)
        return kept


def is_open(fd: int) -> bool:
    """Return whether there is a descriptor of this number. In any process."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def renew_streams() -> None:
    """Make the streams that a forked process has copied usable: sys.stdout, sys.stderr and those of log handlers.

    A copy's buffer holds what the host had not flushed, and that would be written twice. Its lock may be held by a
    thread of the host that was in the middle of a write. Here nobody would ever release it, and a process that prints
    or logs would hang. CPython renews the locks of logging's handlers after a fork (logging/__init__.py), but not
    those of the streams that they write to.

    Other objects refer to the streams, too: handlers, `from sys import stdout`. So the streams are initialized again
    in place, which empties the buffer and makes a new lock. If that fails halfway, a new object replaces the stream.
    Standard input is always replaced, because it is /dev/null by now, and its copy may be locked by a thread that
    reads.
    """
    import io

    streams = {id(stream): stream for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)}
    for stream in streams.values():
        with suppress(Exception):  # it is closed, or a notebook's or a test runner's own
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
    """Empty a buffer that writes to a descriptor, and give it a new lock; return False if it is no such buffer."""
    import io

    if isinstance(buffer, io.BufferedWriter):
        io.BufferedWriter.__init__(buffer, buffer.raw)
    elif isinstance(buffer, io.BufferedRandom):
        io.BufferedRandom.__init__(buffer, buffer.raw)
    else:
        return False
    return True


def flush_output() -> None:
    """Flush standard output and standard error. Errors of streams that are closed, broken or replaced are ignored."""
    # Runs after every task: a loop, or `suppress`, would take longer than the rest.
    try:  # noqa: SIM105
        sys.stdout.flush()
    except Exception:
        pass
    try:  # noqa: SIM105
        sys.stderr.flush()
    except Exception:
        pass


def start_faulthandler() -> None:
    """Have the Python stack written to standard error when native code crashes."""
    import faulthandler

    with suppress(Exception):  # no usable standard error
        faulthandler.enable(2)
