"""Finds the program to start a template with: a Python of the kind that runs here.

Nearly always that is sys.executable. But Python may be a guest in another program (uWSGI, Apache, an application with
a built-in console), and sys.executable is then that program, or the first "python3" in PATH, or empty. Started with
our arguments, a server would run a second time, and a frozen application would start another one of itself, which
starts another. So nothing is started that does not bear the name of a Python of this version; no process is started
to ask.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

from pidfdpool.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Iterator

# python, python3, python3.13t, pypy3.11, python3.12-dbg; not python-something, which may be anything.
_NAME = re.compile(r"(?:python|pypy)(?:(?P<major>\d)(?:\.(?P<minor>\d+)[.\d]*)?)?[a-z]{0,3}(?:-dbg|-debug)?")


def find() -> str:
    """Return the path of the Python to start.

    Raises:
        TemplateError: there is none; the message says where it was looked for, and what helps.
    """
    named = _named_by_the_user()
    if named is not None:
        return named
    if getattr(sys, "frozen", False):
        raise TemplateError(
            f"{sys.executable or 'this program'} is frozen (sys.frozen is set): it brings its modules along, and no "
            f"other Python can import them. Use mp_context='fork'; or {_NAME_ONE}, if there is one that can."
        )
    tried = []
    for program in _candidates():
        if is_usable(program):
            return program
        tried.append(program)
    raise TemplateError(
        f"there is no Python {_version()} to start the template with: sys.executable is {sys.executable!r}, and none "
        f"of these is one: {', '.join(tried) or 'no place is known'}. {_NAME_ONE.capitalize()}, or use "
        "mp_context='fork'."
    )


_NAME_ONE = "name one with multiprocessing.set_executable()"


def _version() -> str:
    return "{}.{}".format(*sys.version_info)


def _named_by_the_user() -> str | None:
    """Return what multiprocessing.set_executable() was called with, which is how one says where Python is."""
    spawn = sys.modules.get("multiprocessing.spawn")
    named = spawn.get_executable() if spawn is not None else None
    if not named:
        return None
    program = os.fsdecode(named)
    if program == sys.executable:
        return None  # the default
    if _runs_here(program) and (getattr(sys, "frozen", False) or not is_usable(program)):
        return None  # the default as it was, before the program corrected sys.executable
    return program


def _runs_here(program: str) -> bool:
    """Return whether this process runs that program, under whichever name."""
    try:
        return os.path.samefile(program, "/proc/self/exe")
    except OSError:
        return False


def is_usable(program: str | None) -> bool:
    """Return whether the file can be run, and is by its name a Python of this version.

    The name counts before links are followed and after that; one that tells another version rules the file out.
    """
    if not program or not os.path.isfile(program) or not _may_be_run(program):
        return False
    names = (os.path.basename(path) for path in (program, os.path.realpath(program)))
    found = [match for match in map(_NAME.fullmatch, names) if match]
    return bool(found) and all(_is_this_version(match) for match in found)


def _may_be_run(program: str) -> bool:
    """Ask as the effective user, which exec goes by; and where a sandbox does not know that call, as the real one."""
    return os.access(program, os.X_OK, effective_ids=True) or os.access(program, os.X_OK)


def _is_this_version(match: re.Match[str]) -> bool:
    told = (match["major"], match["minor"])
    return all(part is None or int(part) == own for part, own in zip(told, sys.version_info, strict=False))


def _candidates() -> Iterator[str]:
    """Yield where the Python of this process may be. The virtual environment comes before what it was made from."""
    if sys.executable:
        yield sys.executable
    names = dict.fromkeys((f"python{_version()}{sys.abiflags}", f"python{_version()}", "python3", "python"))
    for folder in dict.fromkeys(_folders()):
        for name in names:
            yield os.path.join(folder, name)


def _folders() -> Iterator[str]:
    for prefix in (sys.prefix, sys.exec_prefix):
        yield os.path.join(prefix, "bin")
    base = getattr(sys, "_base_executable", None)
    if base:
        yield os.path.dirname(base)
    for prefix in (sys.base_prefix, sys.base_exec_prefix):
        yield os.path.join(prefix, "bin")
    try:
        import sysconfig  # only here, because it is seldom needed and reads a file
    except ImportError:  # not even that can be read: the process has changed its root directory, perhaps
        return
    told = sysconfig.get_config_var("BINDIR")
    if told:
        yield told
