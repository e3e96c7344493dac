"""Starts a resource tracker for a host that has none. Called by `server`, in the template, on its only thread.

The host cannot start it as `multiprocessing` would: it would be a child of the host, and in a program that embeds
Python it would be another one of that program. The template's child becomes one of init's when the template ends, and
ends itself when host, workers and what these have started are gone.
"""

from __future__ import annotations

import os
from contextlib import suppress

from pidfdpool.errors import TemplateError
from pidfdpool.process import hygiene, native
from pidfdpool.process.native import signal
from pidfdpool.template import interpreter
from pidfdpool.template.interpreter_options import interpreter_options

_PROGRAM = "from multiprocessing.resource_tracker import main; main({})"


def start(read_end: int) -> None:
    """Start a tracker that reads this pipe, and close it here.

    If that fails nobody reads the pipe, and `multiprocessing` starts another tracker where the next process uses it.
    """
    with suppress(OSError, ImportError, TemplateError):
        _spawn(read_end, interpreter.find())
    native.close(read_end)


def _spawn(read_end: int, program: str) -> None:
    number = read_end + 1  # dup2 onto another number drops close-on-exec in the new process, and only there
    others = [fd for fd in hygiene.inheritable_descriptors() if fd != number]
    native.posix_spawn(
        program,
        [program, *interpreter_options(), "-c", _PROGRAM.format(number)],
        os.environ,
        file_actions=[
            *((os.POSIX_SPAWN_CLOSE, fd) for fd in others),
            (os.POSIX_SPAWN_DUP2, read_end, number),
        ],
        setpgroup=0,
        setsigmask=(signal.SIGINT, signal.SIGTERM),  # until it ignores them, as multiprocessing does it
        setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
    )
