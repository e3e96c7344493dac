"""What the interpreter really has, where a host has put something else into the standard modules.

gevent and its like replace threads, locks, sockets, polling, forking and signals by what they schedule themselves, in
`threading`, `select`, `socket`, `os` and `signal`. Whatever of ours must not be scheduled by anybody comes from here:
what never waits, what a new process does, and the moment in which a template is started. What may wait while others
go on (the pool's thread, its locks, futures) uses the host's own threads and locks, whatever these are.

Everything is looked up when it is used, because a host may patch at any time. Any thread may call any of it.
"""

from __future__ import annotations

import _socket
import _thread
import _warnings
import fcntl  # not when it is used, which is when descriptors may have run out: a module is a file to open
import os
import posix
import select
import sys
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as signal
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any
else:
    import _signal as signal  # its numbers are plain ones; `signal` makes an Enum of them, which takes 3 ms to load

# Not patched by anybody: patches go into the modules that people import.
posix_spawn = posix.posix_spawn
close = posix.close  # gevent's does it some time later, and in a forked process never
set_signal = signal.signal
get_signal = signal.getsignal
SIG_DFL, SIG_IGN = signal.SIG_DFL, signal.SIG_IGN  # it takes no others, equal as they may be
Socket = _socket.socket

# Seconds that poll, epoll, select and locks can all count, in whatever unit. A longer wait is made of several.
LONGEST_WAIT = 1_000_000.0

_BuiltinFunction = type(len)
_names_in_sys = vars(sys)
_is_told_to_be_interactive = bool(sys.flags.interactive)  # by -i

_second: dict[str, ModuleType] = {}


class _Withheld:
    """What is done with warnings in one thread (`warnings._Context`): nothing, but their texts are kept."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts
        self._filters = [("ignore", self, Warning, None, 0)]
        self.log = None

    def match(self, text: str) -> bool:
        """Be the pattern of the only filter."""
        self._texts.append(text)
        return True


def fork(withheld: list[str] | None = None) -> int:
    """Return 0 in a new process, and its number in this one, whatever the host does with warnings.

    withheld: gets the texts of warnings that were withheld in this process.

    Python warns of a fork beside other threads when the new process is already there. Since Python 3.15 an exception
    that comes of it (warnings may be errors, and may be shown by code of the host's) is what the parent gets in the
    place of the number. So the warning is withheld, from this thread alone, where the interpreter has a way to do
    that: from 3.14 on. Before, it drops such an exception itself.
    """
    context = getattr(_warnings, "_warnings_context", None)
    if context is None:
        return posix.fork()
    token = context.set(_Withheld([] if withheld is None else withheld))
    try:
        return posix.fork()
    finally:
        context.reset(token)


def threads_are_greenlets() -> bool:
    """Return whether `threading` makes greenlets, and not threads of the operating system.

    Those who replace it are asked. What is found there tells nothing: debuggers and profilers wrap it as well, to see
    each thread from its beginning, and what they start is still a thread.
    """
    return _is_patched("_thread", "start_new_thread", "thread")


def epoll() -> select.epoll:
    """Return a new epoll instance. Close-on-exec."""
    return _native(select, "epoll")()  # type: ignore[no-any-return]


def poll() -> select.poll:
    """Return a new polling object whose `poll` holds up this thread of the operating system, and nothing less."""
    return _native(select, "poll")()  # type: ignore[no-any-return]


def socketpair() -> tuple[_socket.socket, _socket.socket]:
    """Return two connected stream sockets, close-on-exec and blocking.

    A host may have called socket.setdefaulttimeout(). Then new sockets have a timeout, which for the kernel means
    that they never block, and that goes with the descriptor into every process that gets it.
    """
    ends = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    for end in ends:
        _block(end)
    return ends


def _block(end: Socket) -> None:
    if end.gettimeout() is not None:
        end.settimeout(None)


def above_stdio(fd: int) -> int:
    """Return fd, or its replacement if its number is that of a standard stream; close-on-exec either way.

    Raises:
        OSError: no descriptor is left; fd stays open.
    """
    if fd > 2:
        return fd
    moved = duplicate(fd)
    close(fd)
    return moved


def set_close_on_exec(fd: int) -> None:
    """Have an exec close the descriptor. os.set_inheritable() needs ioctl(2), which a sandbox may refuse."""
    fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)


def duplicate(fd: int) -> int:
    """Return another descriptor of the same thing: close-on-exec, with a number above those of the standard streams.

    Raises:
        OSError: no descriptor is left.
    """
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def load_ctypes() -> None:
    """Load what `ctypes` is made of, so that nothing in it takes the number of a standard stream that is closed.

    libffi 3.8 opens its own file when it is loaded, and keeps it open. Whoever prints in a process where that has
    number 1 gets an error, and whatever is forked or started from there gets the number as well.
    """
    if "_ctypes" in sys.modules:
        return
    taken = []
    with suppress(OSError):  # no descriptor is left, for libffi neither
        # A new descriptor gets the lowest number that is free. With these nothing can be done (O_PATH, open(2)), so
        # that to read and to write fails in the meantime, in another thread, as it does without them.
        while (fd := os.open("/", os.O_PATH | os.O_CLOEXEC)) <= 2:
            taken.append(fd)
        close(fd)
    try:
        import _ctypes  # noqa: F401
    finally:
        for fd in taken:
            with suppress(OSError):  # closed by somebody else
                if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH:  # or something of theirs was put there
                    close(fd)


def socket_of(fd: int) -> _socket.socket:
    """Return the socket that the descriptor names, which is its own from now on. Blocking; see `socketpair`."""
    # What it is is told, or else the kernel would be asked three times, and a sandbox might refuse that.
    end = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fd)
    _block(end)
    return end


def wait_readable(waiting: select.epoll, timeout: float | None) -> None:
    """Wait until epoll has something to tell, where threads are greenlets, and let the others run meanwhile.

    Raises:
        RuntimeError: threads are patched and select is not, so that nothing can be waited for without stopping all.
    """
    if not _is_patched("select", "select", "select"):
        raise RuntimeError(
            "the threads of this process are greenlets, but select.select is not patched: a pool's thread would stop "
            "all of them. Patch both."
        )
    select.select([waiting], [], [], timeout)


def run_in_fresh_thread(call: Callable[[], Any]) -> Any:
    """Return call(), run by a new thread of the operating system. Nothing else runs in the calling thread meanwhile.

    Raises what the call raises.
    """
    module = _threads()
    outcome: list[Any] = []
    done = module.allocate_lock()
    done.acquire()

    def run() -> None:
        try:
            outcome.append((call(), None))
        except BaseException as error:
            outcome.append((None, error))
        finally:
            done.release()

    module.start_new_thread(run, ())
    done.acquire()
    value, error = outcome[0]
    if error is not None:
        raise error
    return value


def reentrant_lock() -> Any:
    """Return a threading.RLock between threads of the operating system.

    Whoever holds it must let no other greenlet run.
    """
    return _threads().RLock()


def lock() -> Any:
    """Return a threading.Lock between threads of the operating system; see `reentrant_lock`."""
    return _threads().allocate_lock()


def host_lock() -> Any:
    """Return a reentrant lock of the host's own kind: between greenlets, where its threads are these."""
    return sys.modules.get("threading", _thread).RLock()


def in_main_thread() -> bool:
    """Return whether this is the process's first thread of the operating system, or what is left of it in a fork."""
    return os.getpid() == _thread.get_native_id()


def in_subinterpreter() -> bool:
    """Return whether the calling code runs in another interpreter of this process than its main one."""
    for name in ("_interpreters", "_xxsubinterpreters"):  # since Python 3.13, and before
        with suppress(ImportError):
            interpreters: Any = __import__(name)
            return bool(interpreters.get_current() != interpreters.get_main())
    return False


def is_interactive() -> bool:
    """Return whether this interpreter serves a prompt or a notebook."""
    # Asked with each task, and hasattr takes its time to find nothing.
    return "ps1" in _names_in_sys or _is_told_to_be_interactive


def sleep(seconds: float) -> None:
    """Hold up this thread of the operating system."""
    poll().poll(seconds * 1000)


def _is_patched(module: str, name: str, part: str) -> bool:
    """Return whether gevent has replaced a function, or eventlet the part of the standard library that it is in."""
    # Of a module that is being imported in another thread there may be no more than the name.
    gevent = getattr(sys.modules.get("gevent.monkey"), "is_object_patched", None)
    eventlet = getattr(sys.modules.get("eventlet.patcher"), "is_monkey_patched", None)
    return bool((gevent and gevent(module, name)) or (eventlet and eventlet(part)))


def _threads() -> Any:
    return _second_instance("_thread") if threads_are_greenlets() else _thread


def _native(module: ModuleType, name: str) -> Any:
    """Return the module's own class of this name."""
    value = getattr(module, name, None)
    # `select.poll` is a function of the C module's, `select.epoll` a class of it.
    if isinstance(value, _BuiltinFunction) or (isinstance(value, type) and value.__module__ == module.__name__):
        return value
    return getattr(_second_instance(module.__name__), name)


def _second_instance(name: str) -> ModuleType:
    """Return a second instance of a module that is written in C, as it was made before anybody patched the first."""
    if name not in _second:
        from importlib.util import find_spec, module_from_spec

        spec = find_spec(name)
        assert spec is not None  # it is loaded
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        _second[name] = module
    return _second[name]
