"""The interpreter's own functions, where a host has replaced those of the standard modules.

Called by every room, in every process, on any thread.

gevent and similar tools replace threads, locks, sockets, polling, forking and signals in `threading`, `select`,
`socket`, `os` and `signal`, and schedule them in their own way. Code of ours that no such tool may schedule uses the
functions here: code that never waits, code of a new process, and the start of a template. Code that may wait while
others continue (the pool thread, its locks, futures) uses the host's own threads and locks, whatever these are.

Everything is looked up when it is used, because a host may patch modules at any time.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    from pidfdpool import PidfdPoolExecutor  # noqa: F401  it raises ImportError, and says what there is instead

import _socket
import _thread
import _warnings
import fcntl  # loaded here, because when it is used no descriptor may be left to load it with
import os
import posix
import select
from contextlib import suppress

from pidfdpool.process import locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as signal
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any, Final
else:
    import _signal as signal  # its numbers are plain ones; `signal` makes an Enum of them, which takes 3 ms to load

# Not patched by anybody: patches go into the modules that people import.
posix_spawn: Final = posix.posix_spawn
close: Final = posix.close  # gevent's closes later, and in a forked process never
close_range: Final = posix.closerange
read: Final = posix.read
write: Final = posix.write
set_signal: Final = signal.signal
get_signal: Final = signal.getsignal
SIG_DFL, SIG_IGN = signal.SIG_DFL, signal.SIG_IGN  # `set_signal` takes these objects only, and no equal ones
Socket = _socket.socket

# A number of seconds that poll, epoll, select and locks can all count in their units. Longer waits consist of
# several.
LONGEST_WAIT = 1_000_000.0

_BuiltinFunction = type(len)
names_in_sys: dict[str, Any] = vars(sys)
is_told_to_be_interactive: bool = bool(sys.flags.interactive)  # by -i

_second: dict[str, ModuleType] = {}


class _WarningCollector:
    """A context for warnings of one thread (`warnings._Context`). It shows none of them, and stores their texts."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts
        self._filters = [("ignore", self, Warning, None, 0)]
        self.log = None

    def match(self, text: str) -> bool:
        """Match every warning: this object is the pattern of the only filter."""
        self._texts.append(text)
        return True


def fork(withheld: list[str] | None = None) -> int:
    """Return 0 in a new process, and its pid in this one, whatever the host does with warnings.

    withheld: gets the texts of the warnings that were withheld in this process.

    Python warns of a fork beside other threads when the new process exists already. The warning may become an
    exception: warnings may be errors, and may be shown by code of the host's. Since Python 3.15 the parent gets that
    exception in place of the pid. So from 3.14 on, where the interpreter has a way to do it for one thread, the
    warning is withheld. Older interpreters drop such an exception themselves.
    """
    context = getattr(_warnings, "_warnings_context", None)
    if context is None:
        return posix.fork()
    token = context.set(_WarningCollector([] if withheld is None else withheld))
    try:
        return posix.fork()
    finally:
        context.reset(token)


def threads_are_greenlets() -> bool:
    """Return whether `threading` makes greenlets, and not threads of the operating system.

    The tools that do this are asked. To look at `threading` itself would not help, because debuggers and profilers
    replace its functions, too, and what they start is still a thread.
    """
    return _is_patched("_thread", "start_new_thread", "thread")


def epoll() -> select.epoll:
    """Return a new epoll instance. Close-on-exec."""
    return _native(select, "epoll")()  # type: ignore[no-any-return]


def poll() -> select.poll:
    """Return a new polling object whose `poll` blocks this thread of the operating system, with all its greenlets."""
    return _native(select, "poll")()  # type: ignore[no-any-return]


def socketpair(kind: int = _socket.SOCK_STREAM) -> tuple[_socket.socket, _socket.socket]:
    """Return two connected sockets, close-on-exec and blocking.

    A host may have called socket.setdefaulttimeout(). Then new sockets have a timeout. For the kernel that means that
    they never block, and this holds in every process that gets the descriptor.
    """
    ends = _socket.socketpair(_socket.AF_UNIX, kind)
    for end in ends:
        _make_blocking(end)
    return ends


def _make_blocking(end: Socket) -> None:
    if end.gettimeout() is not None:
        end.settimeout(None)


def above_stdio(fd: int) -> int:
    """Return fd, or a duplicate that replaces it if its number is that of a standard stream. Both are close-on-exec.

    Raises:
        OSError: no descriptor is left; fd is closed.
    """
    if fd > 2:
        return fd
    try:
        return duplicate(fd)
    finally:
        close(fd)


def set_close_on_exec(fd: int) -> None:
    """Make the descriptor close-on-exec. os.set_inheritable() needs ioctl(2), which a sandbox may refuse."""
    fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)


def make_blocking(fd: int) -> None:
    """Have reads and writes wait. os.set_blocking() needs ioctl(2), which a sandbox may refuse."""
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_NONBLOCK)


def duplicate(fd: int) -> int:
    """Return a duplicate of the descriptor. It is close-on-exec and has a number above 2.

    Raises:
        OSError: no descriptor is left.
    """
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def load_ctypes() -> None:
    """Load `_ctypes` so that it does not take the number of a standard stream that is closed.

    libffi 3.8 opens its own file when it is loaded, and keeps it open. If that gets number 1, prints fail, in this
    process and in those that are forked or started from it.
    """
    if "_ctypes" in sys.modules:
        return
    taken = []
    with suppress(OSError):  # no descriptor is left, and libffi cannot get one either
        # A new descriptor gets the lowest free number. Those that are opened here allow no operation (O_PATH,
        # open(2)). So reads and writes of other threads fail meanwhile, as they do while the numbers are free.
        while (fd := os.open("/", os.O_PATH | os.O_CLOEXEC)) <= 2:
            taken.append(fd)
        close(fd)
    try:
        import _ctypes  # noqa: F401
    finally:
        for fd in taken:
            with suppress(OSError):  # another thread has closed it
                if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH:  # otherwise another thread has put its own file there
                    close(fd)


def socket_of(fd: int) -> _socket.socket:
    """Return a socket that owns the descriptor from now on. It is blocking; see `socketpair`."""
    # Without its family, type and protocol Python would make three system calls, which a sandbox may refuse.
    end = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fd)
    _make_blocking(end)
    return end


def wait_readable(waiting: select.epoll, timeout: float | None) -> None:
    """Wait until epoll has an event, where threads are greenlets, and let other greenlets run meanwhile.

    Raises:
        RuntimeError: threads are patched and select is not, so that a wait would stop all greenlets.
    """
    if not _is_patched("select", "select", "select"):
        raise RuntimeError(
            "the threads of this process are greenlets, but select.select is not patched: a pool's thread would stop "
            "all of them. Patch both."
        )
    select.select([waiting], [], [], timeout)


def run_in_fresh_thread(call: Callable[[], Any]) -> Any:
    """Return call(), run by a new thread of the operating system. The calling thread is blocked meanwhile.

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

    A caller that holds it must not let another greenlet run.
    """
    return locks.whole(_threads().RLock())


def lock() -> Any:
    """Return a threading.Lock between threads of the operating system; see `reentrant_lock`."""
    return locks.whole(_threads().allocate_lock())


def in_main_thread() -> bool:
    """Return whether this is the process's first thread of the operating system, or the only thread after a fork."""
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
    # Called for each task, and hasattr is slow if there is no such name.
    return "ps1" in names_in_sys or is_told_to_be_interactive


def sleep(seconds: float) -> None:
    """Block this thread of the operating system."""
    poll().poll(seconds * 1000)


def _is_patched(module: str, name: str, part: str) -> bool:
    """Return whether gevent has replaced the function, or eventlet has patched its part of the standard library."""
    # If another thread is importing one of these modules, it may not have the function yet.
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
    """Return a second instance of a module that is written in C. Nobody has patched that one."""
    if name not in _second:
        from importlib.util import find_spec, module_from_spec

        spec = find_spec(name)
        assert spec is not None  # it is loaded
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        _second[name] = module
    return _second[name]
