"""The options of this interpreter's command line, for another one that is to work as it does.

Called by `launch` in the host, on the thread that starts a template, and by `tracker_process` in the template.
"""

from __future__ import annotations

import _imp
import io
import sys
from contextlib import suppress


def interpreter_options() -> list[str]:
    """Return the options of this interpreter's command line, for the new one."""
    from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]

    options: list[str] = _args_from_interpreter_flags()
    # CPython's list lacks newer -X options, and those that the user has invented.
    for name, value in sys._xoptions.items():
        option = name if value is True else f"{name}={value}"
        if not any(known == name or known.startswith(f"{name}=") for known in options):
            options += "-X", option
    if _imp.check_hash_based_pycs != "default":
        options += "--check-hash-based-pycs", _imp.check_hash_based_pycs
    if _is_unbuffered():
        options.append("-u")
    # -P: the launcher replaces its sys.path by the host's. Without -P CPython 3.13.0 still remembers the '' of -c.
    # Where that directory is gone, each look-up of a name that a module lacks fails with a SystemError.
    return [*options, "-P"]


def _is_unbuffered() -> bool:
    """Return whether this interpreter was started with -u. sys.flags has no field for it."""
    for stream in (sys.__stdout__, sys.__stderr__):
        with suppress(ValueError):  # the program has detached its buffer
            if isinstance(getattr(stream, "buffer", None), io.FileIO):
                return True
    return False
