"""What the interpreter really has, where a host has put something else into the standard modules.

gevent and its like replace threads, locks, sockets, polling, forking and signals by what they schedule themselves, in
`threading`, `select`, `socket`, `os` and `signal`. Whatever of ours must not be scheduled by anybody comes from here:
what never waits, what a new process does, and the moment in which a template is started. What may wait while others
go on (the pool's thread, its locks, futures) uses the host's own threads and locks, whatever these are.

Everything is looked up when it is used, because a host may patch at any time. Any thread may call any of it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import _thread
import os
import posix
import select
import sys
from types import BuiltinFunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

# Not patched by anybody: patches go into the modules that people import.
fork = posix.fork
posix_spawn = posix.posix_spawn
close = posix.close  # gevent's does it some time later, and in a forked process never
set_signal = _signal.signal
get_signal = _signal.getsignal
SIG_DFL, SIG_IGN = _signal.SIG_DFL, _signal.SIG_IGN  # it takes no others, equal as they may be
Socket = _socket.socket

_second: dict[str, ModuleType] = {}


def threads_are_greenlets() -> bool:
    """Return whether `threading` makes something other than threads of the operating system."""
    return not isinstance(_thread.start_new_thread, BuiltinFunctionType)


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
        end.settimeout(None)
    return ends


def socket_of(fd: int) -> _socket.socket:
    """Return the socket that the descriptor names, which is its own from now on. Blocking; see `socketpair`."""
    end = _socket.socket(fileno=fd)
    end.settimeout(None)
    return end


def wait_readable(waiting: select.epoll, timeout: float | None) -> None:
    """Wait until epoll has something to tell, where threads are greenlets, and let the others run meanwhile.

    Raises:
        RuntimeError: threads are patched and select is not, so that nothing can be waited for without stopping all.
    """
    if isinstance(select.select, BuiltinFunctionType):
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


def in_main_thread() -> bool:
    """Return whether this is the process's first thread of the operating system, or what is left of it in a fork."""
    return os.getpid() == _thread.get_native_id()


def is_interactive() -> bool:
    """Return whether this interpreter serves a prompt or a notebook."""
    return hasattr(sys, "ps1") or bool(sys.flags.interactive)


def sleep(seconds: float) -> None:
    """Hold up this thread of the operating system."""
    poll().poll(seconds * 1000)


def _threads() -> Any:
    return _second_instance("_thread") if threads_are_greenlets() else _thread


def _native(module: ModuleType, name: str) -> Any:
    """Return the module's own class of this name."""
    value = getattr(module, name, None)
    # `select.poll` is a function of the C module's, `select.epoll` a class of it.
    if isinstance(value, BuiltinFunctionType) or (isinstance(value, type) and value.__module__ == module.__name__):
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
