"""The two ways in which the launcher comes into being: a fresh interpreter, or a fork of the host.

Called by `client`, in the host; what is forked runs on in `process`. Both return the launcher's number.
"""

from __future__ import annotations

import _imp
import io
import os
import signal
import sys
import warnings
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from pidfdpool.process import hygiene, native
from pidfdpool.process.counters import REFUSALS
from pidfdpool.transport import framing

if TYPE_CHECKING:
    from pidfdpool.process.native import Socket
    from pidfdpool.template.client import HostEnd
    from pidfdpool.worker.boot import Boot

OTHER_PYTHON = 62  # the exit code of an interpreter that is of another version than the host

# The version comes first: another one fails somewhere in these modules, with an error that tells nothing.
# The host's sys.path comes as arguments, so that the very same pidfdpool is found, whatever is installed or lies in
# the current directory. Its own place comes last, for a host that found it in another way: by a hook, or relative to
# a directory that it has left. While modules are loaded, garbage collections only take time.
_LAUNCHER = (
    f"import sys; sys.implementation.cache_tag == {sys.implementation.cache_tag!r} or sys.exit({OTHER_PYTHON}); "
    "import gc; gc.disable(); sys.path[:] = sys.argv[7:] + sys.argv[6:7]; "
    "from pidfdpool.template.process import main; del sys.path[-1]; main(sys.argv[1:6])"
)
_HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _current_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None  # it is gone


# Where the host was when it loaded this, or multiprocessing, which takes a note of it, too.
_began_in: str | None = getattr(sys.modules.get("multiprocessing.process"), "ORIGINAL_DIR", _current_directory())


# What launcher, template and workers import for themselves, and what they use if the host has it; see
# `_finish_imports`.
_IMPORTED_AFTER_A_FORK = ("atexit", "fcntl", "pidfdpool.template.preimports")
_USED_IF_LOADED = ("cloudpickle", "concurrent.futures.process", "multiprocessing.reduction", "multiprocessing.util")


def spawn(program: str, fds: tuple[int, int, int], handles: str, seal: int) -> int:
    """Start the launcher in a fresh interpreter, with the host's interpreter options.

    fds: its end of the channel; what is readable when the host is gone; the read end of the lifeline.
    """
    # dup2 onto another number is what drops close-on-exec in the new process, and only there.
    given = dict(enumerate(fds, start=max(fds) + 1))
    start = partial(
        native.posix_spawn,
        program,
        [program, *_options(), "-c", _LAUNCHER, *map(str, given), handles, str(seal), _HOME, *_paths()],
        os.environ,
        file_actions=[*_streams(), *((os.POSIX_SPAWN_DUP2, fd, number) for number, fd in given.items())],
        setsigmask=(),
        setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
    )
    # Ctrl-C in the host's terminal is not for us.
    try:
        return start(setpgroup=0)
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
    return start(setsid=True)  # if it was not setpgid that a sandbox has refused, this fails, too


def _streams() -> list[tuple[int, int, str, int, int]]:
    """Return what puts /dev/null where a standard stream is closed.

    Not only the first code of ours could come too late: a .pth file may load what keeps a descriptor.
    """
    modes = {0: os.O_RDONLY, 1: os.O_WRONLY, 2: os.O_WRONLY}
    if not os.access(os.devnull, os.R_OK | os.W_OK):
        return []
    return [(os.POSIX_SPAWN_OPEN, fd, os.devnull, mode, 0) for fd, mode in modes.items() if not hygiene.is_open(fd)]


def _options() -> list[str]:
    """Return the options that this interpreter was started with, for another one."""
    from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]

    options: list[str] = _args_from_interpreter_flags()
    # CPython's list lacks what newer -X options there are, and those of the user's own.
    for name, value in sys._xoptions.items():
        option = name if value is True else f"{name}={value}"
        if not any(known == name or known.startswith(f"{name}=") for known in options):
            options += "-X", option
    if _imp.check_hash_based_pycs != "default":
        options += "--check-hash-based-pycs", _imp.check_hash_based_pycs
    if _is_unbuffered():
        options.append("-u")
    # -P: the launcher puts the host's path in place of its own. CPython 3.13.0 remembers the '' of -c all the same
    # and, where that directory is gone, fails each look-up of a name that a module lacks with a SystemError.
    return [*options, "-P"]


def _is_unbuffered() -> bool:
    """Return whether this interpreter was started with -u, of which sys.flags tells nothing."""
    for stream in (sys.__stdout__, sys.__stderr__):
        with suppress(ValueError):  # the program has detached its buffer
            if isinstance(getattr(stream, "buffer", None), io.FileIO):
                return True
    return False


def _paths() -> list[str]:
    """Return where workers look for modules: where the host does, and did.

    A relative entry, such as the '' of a prompt or a notebook, means the directory that the host is in. If that is
    another one by now (os.chdir), modules which the host has long imported are no longer there, and no worker would
    find them. So the directory in which it began comes first, as with the standard library's spawned workers.
    """
    paths: list[str] = []
    for path in sys.path:
        if isinstance(path, str):
            if _began_in is not None and not os.path.isabs(path):
                paths.append(os.path.join(_began_in, path) if path else _began_in)
            paths.append(path)
    return paths


def fork(theirs: Socket, host: int, lifeline: int, boot: Boot, link: HostEnd, handed_over: set[int]) -> int:
    """Fork the launcher from the host: the one fork of the host for this pool.

    handed_over: descriptors that workers are to keep, though they are connections.
    """
    _finish_imports()
    hygiene.flush_output()
    withheld: list[str] = []
    run = partial(_fork_here, theirs, host, lifeline, boot, link, handed_over, withheld)
    # Where threads are greenlets, all of this thread's would be copied, too, and the first task that lets others run
    # would run them, in a worker. A new thread has none, and it is the only one that the new process gets.
    pid: int = native.run_in_fresh_thread(run) if native.threads_are_greenlets() else run()
    for text in withheld:
        # Warnings may be errors here, or be shown by code of the host's that raises whatever it likes.
        with suppress(BaseException):
            warnings.warn(text, DeprecationWarning, stacklevel=1)
    return pid


def _finish_imports() -> None:
    """Import what the new processes are going to.

    A module that another thread is just importing is locked. The copy of that lock in a forked process is never
    released, and an import of the module would wait for it: here it can be waited for, there it cannot.
    """
    for name in _IMPORTED_AFTER_A_FORK:
        import_module(name)
    for name in _USED_IF_LOADED:
        if name in sys.modules:
            import_module(name)


def _fork_here(
    theirs: Socket,
    host: int,
    lifeline: int,
    boot: Boot,
    link: HostEnd,
    handed_over: set[int],
    withheld: list[str],
) -> int:
    with hygiene.signals_blocked(), hygiene.untraced():
        pid = native.fork(withheld)
        if pid:
            return pid
        try:
            hygiene.stop_tracing()
            from pidfdpool.template.process import launch

            leave = partial(_leave_host, link, handed_over)
            launch(theirs.detach(), host, lifeline, boot.handles, framing.seal_of(link.seal), boot, leave)
        finally:
            os._exit(1)


def _leave_host(link: HostEnd, handed_over: set[int]) -> None:
    """Give up, in the template, the copies of what is the host's alone."""
    link.close()
    hygiene.give_up_connections(keep=handed_over)
