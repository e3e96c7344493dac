"""Starts the launcher in one of two ways: in a fresh interpreter (`spawn`), or as a fork of the host (`fork`).

Called by `client`, in the host, on the thread that starts a template. Both return the launcher's pid. The launcher
continues in `process`: `main` after a spawn, `launch` after a fork.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
import warnings
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pidfdpool.process import hygiene, native
from pidfdpool.process.counters import REFUSALS
from pidfdpool.process.native import signal
from pidfdpool.template.interpreter_options import interpreter_options
from pidfdpool.transport import framing
from pidfdpool.worker.boot import DETACHED, PIDFD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pidfdpool.process.native import Socket
    from pidfdpool.template.connection import TemplateConnection
    from pidfdpool.worker.boot import Boot

OTHER_PYTHON = 62  # the exit code of an interpreter whose version is not the host's

# The version is checked first: an interpreter of another version would fail somewhere in these modules, with an error
# that explains nothing. The host's sys.path comes as arguments, so that the same pidfdpool is found, whatever is
# installed or lies in the current directory. The folder of this package is added at the end, for a host that found it
# in another way: by an import hook, or relative to a directory that it has left. Garbage collections are off while
# modules are loaded, because they would find nothing.
_LAUNCHER = (
    f"import sys; sys.implementation.cache_tag == {sys.implementation.cache_tag!r} or sys.exit({OTHER_PYTHON}); "
    "import gc; gc.disable(); sys.path[:] = sys.argv[7:] + sys.argv[6:7]; "
    "from pidfdpool.template.process import main; del sys.path[-1]; main(sys.argv[1:6])"
)
# A program of the system that makes a new session and runs another program there. If it leads a process group, which
# cannot become a session, it forks first and exits at once. So a process that nobody has to wait for becomes the
# template. This program is there in a millisecond, while an interpreter as the launcher takes ten to fork.
_DETACHING = "/usr/bin/setsid"
_HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _current_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None  # it was removed


# The directory in which the host loaded this module, or multiprocessing, which stores it as well.
_initial_directory: str | None = getattr(
    sys.modules.get("multiprocessing.process"), "ORIGINAL_DIR", _current_directory()
)


# Modules that launcher, template and workers import, and modules that they use if the host has loaded them; see
# `_finish_imports`.
_IMPORTED_AFTER_A_FORK = ("atexit", "fcntl", "pidfdpool.template.preimports")
_USED_IF_LOADED = (
    "cloudpickle",
    "concurrent.futures.process",
    "multiprocessing.reduction",
    "multiprocessing.resource_tracker",
    "multiprocessing.util",
    "subprocess",
)


def spawn_detached(program: str, fds: tuple[int, int, int], cookie: int) -> int:
    """Start a small program of the system as the launcher, which has a fresh interpreter become the template.

    That program must not write into the host's standard error if it cannot fork: the next start says what is wrong.
    So the template gets standard error under another number, and puts it where it belongs (`process.main`).

    fds: as in `spawn`.

    Raises:
        OSError: there is no such program, or the kernel refused.
    """
    stderr = max(fds) + len(fds) + 1
    silence: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_DUP2, 2, stderr)]
    if os.access(os.devnull, os.W_OK):
        silence.append((os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0))
    start = _starting(_DETACHING, program, fds, f"{DETACHED}{stderr}", cookie, silence)
    return start(setpgroup=0)


def spawn(program: str, fds: tuple[int, int, int], handles: str, cookie: int) -> int:
    """Start the launcher in a fresh interpreter, with the host's interpreter options.

    fds: the template's end of the channel; a descriptor that is readable once the host is gone; the read end of the
        lifeline.
    """
    start = _starting(program, program, fds, handles, cookie)
    # A process group of its own, so that Ctrl-C in the host's terminal does not signal the launcher.
    try:
        return start(setpgroup=0)
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
    return start(setsid=True)  # fails as well, if the sandbox has refused another call than setpgid


def _starting(
    launcher: str,
    program: str,
    fds: tuple[int, int, int],
    handles: str,
    cookie: int,
    further_actions: Sequence[tuple[Any, ...]] = (),
) -> Callable[..., int]:
    """Return a call of posix_spawn that lacks only the process group or session of the launcher."""
    # dup2 onto another number drops close-on-exec in the new process, and only there.
    given = dict(enumerate(fds, start=max(fds) + 1))
    arguments = [
        program,
        *interpreter_options(),
        "-c",
        _LAUNCHER,
        *map(str, given),
        handles,
        str(cookie),
        _HOME,
        *_paths(),
    ]
    start = partial(
        native.posix_spawn,
        launcher,
        arguments if launcher == program else [launcher, *arguments],
        os.environ,
        file_actions=[
            *_streams(),
            *((os.POSIX_SPAWN_DUP2, fd, number) for number, fd in given.items()),
            *further_actions,
        ],
        setsigmask=(),
        setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
    )
    return partial(_started, start, max(given) + len(further_actions))


def _started(start: Callable[..., int], highest: int, **how: Any) -> int:
    """Return start(**how). highest: the highest number of a descriptor that it gives to the new process.

    Raises:
        OSError: the kernel refused; EMFILE also where the number is too high, which dup2(2) calls EBADF.
    """
    try:
        return start(**how)
    except OSError as error:
        if error.errno == errno.EBADF:
            import resource

            if highest >= resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from None
        raise


def is_detached_template(pid: int, cookie: int) -> bool:
    """Return whether the process was started by `spawn_detached` with this cookie, and has not ended."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            arguments = file.read().split(b"\0")
    except OSError:
        return False  # it has ended, or there is no /proc
    return arguments.count(_LAUNCHER.encode()) == 1 and str(cookie).encode() in arguments


def _streams() -> list[tuple[int, int, str, int, int]]:
    """Return the actions that open /dev/null in place of each standard stream that is closed.

    It must be done before the interpreter starts: a .pth file may load a module that keeps a descriptor open.
    """
    modes = {0: os.O_RDONLY, 1: os.O_WRONLY, 2: os.O_WRONLY}
    if not os.access(os.devnull, os.R_OK | os.W_OK):
        return []
    return [(os.POSIX_SPAWN_OPEN, fd, os.devnull, mode, 0) for fd, mode in modes.items() if not hygiene.is_open(fd)]


def _paths() -> list[str]:
    """Return the sys.path of workers: the host's, with the host's initial directory before each relative entry.

    A relative entry, such as the '' of a prompt or a notebook, means the host's current directory. If the host has
    changed it since (os.chdir), modules that the host imported earlier are no longer there, and no worker would find
    them. So the initial directory comes first, as with the standard library's spawned workers.
    """
    paths: list[str] = []
    for path in sys.path:
        if isinstance(path, str):
            if _initial_directory is not None and not os.path.isabs(path):
                paths.append(os.path.join(_initial_directory, path) if path else _initial_directory)
            paths.append(path)
    return paths


def fork(
    theirs: Socket,
    host: int,
    lifeline: int,
    boot: Boot,
    connection: TemplateConnection,
    kept_fds: set[int],
    requests: int,
) -> int:
    """Fork the launcher from the host: the one fork of the host for this pool.

    host: a descriptor that is readable once the host is gone. lifeline: the read end.
    kept_fds: descriptors that workers keep although they are connections.
    requests: with which template and workers ask for the host's resource tracker.
    """
    _finish_imports()
    hygiene.flush_output()
    withheld: list[str] = []
    close_copies = partial(_close_copies, connection, kept_fds, requests)
    run = partial(_fork_in_this_thread, theirs, host, lifeline, boot, close_copies, connection.cookie, withheld)
    # Where threads are greenlets, all greenlets of this thread would be copied. The first task that lets others run
    # would run them in a worker. A new thread has none, and it is the only thread that the new process gets.
    pid: int = native.run_in_fresh_thread(run) if native.threads_are_greenlets() else run()
    for text in withheld:
        # Warnings may be errors here, or may be shown by code of the host's that raises anything.
        with suppress(BaseException):
            warnings.warn(text, DeprecationWarning, stacklevel=1)
    return pid


def _finish_imports() -> None:
    """Import the modules that the new processes are going to import.

    While a thread imports a module, the module is locked. In a forked process the copy of that lock is never
    released, and an import of the module would wait for ever. Here, in the host, the lock can be waited for.
    """
    for name in _IMPORTED_AFTER_A_FORK:
        import_module(name)
    for name in _USED_IF_LOADED:
        if name in sys.modules:
            import_module(name)


def _fork_in_this_thread(
    theirs: Socket,
    host: int,
    lifeline: int,
    boot: Boot,
    close_copies: Callable[[], None],
    cookie: int,
    withheld: list[str],
) -> int:
    with hygiene.signals_blocked(), hygiene.untraced():
        pid = native.fork(withheld)
        if pid:
            return pid
        try:
            # A garbage collection here would touch all that the host has, and the kernel would copy its pages.
            gc.freeze()
            hygiene.stop_tracing()
            from pidfdpool.template.process import launch

            launch(
                theirs.detach(),
                host,
                lifeline,
                boot.handles,
                framing.cookie_bytes(cookie),
                boot,
                close_copies,
                is_awaited=boot.handles != PIDFD,
            )
        finally:
            os._exit(1)


def _close_copies(connection: TemplateConnection, kept_fds: set[int], requests: int) -> None:
    """Close, in the template, the copies of the host's connections, and use its own: `requests`."""
    from pidfdpool.worker import shared_tracker

    connection.close()
    hygiene.close_connections(keep=kept_fds)
    shared_tracker.install(requests)
