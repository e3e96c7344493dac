"""Finds the program to start a template with: the Python interpreter of the version that runs here.

Called by `client`, in the host, on the thread that starts a template.

Nearly always the program is sys.executable. But Python may be embedded in another program (an editor, uWSGI, Apache,
an application with a built-in console). Then sys.executable is that program, or the first "python3" in PATH, or
empty. If it were started with our arguments, a server would run a second time, and a frozen application would start
another one of itself, which starts another. So only a program is started that has the name of a Python of this
version.

The first "python3" in PATH may be anything, for example a script that starts one Python or another, depending on the
directory. So where it is not certain which program is right, those in sys.prefix are tried first. If a program does
not answer, or is another Python, the next one is tried.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from typing import TYPE_CHECKING, TypeVar

from pidfdpool.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

# python, python3, python3.13t, pypy3.11, python3.12-dbg; not python-something, which may be anything.
_NAME = r"(?:python|pypy)(?:(?P<major>\d)(?:\.(?P<minor>\d+)[.\d]*)?)?[a-z]{0,3}(?:-dbg|-debug)?"
_USUAL_NAMES = {"python", "python3", "python{}.{}".format(*sys.version_info)}  # to compile the pattern takes 0.3 ms


def find() -> str:
    """Return the path of the Python to start: the most likely one, where it is not certain.

    Raises:
        TemplateError: there is none; the message lists the places that were searched, and what helps.
    """
    named = _set_by_user()
    if named is not None:
        return named
    if getattr(sys, "frozen", False):
        raise TemplateError(
            f"{sys.executable or 'this program'} is frozen (sys.frozen is set): it contains its modules, and no "
            f"other Python can import them. Use mp_context='fork'; or {_NAME_ONE}, if there is one that can."
        )
    if _is_certain(sys.executable):
        return sys.executable
    for program in _candidates():
        if is_usable(program):
            return program
    raise TemplateError(
        f"there is no Python {_version()} to start the template with: sys.executable is {sys.executable!r}, and none "
        f"of these is one: {', '.join(_candidates()) or 'no place is known'}. {_NAME_ONE.capitalize()}, or use "
        "mp_context='fork'."
    )


def certain() -> str | None:
    """Return the path of the Python to start, if it is certain which one that is. None: it has to be found out."""
    is_own = _set_by_user() is None and not getattr(sys, "frozen", False) and os.path.isabs(sys.executable or "")
    return sys.executable if is_own and _is_certain(sys.executable) else None


def start_first_usable(start: Callable[[str, bool], T]) -> T:
    """Call start(program, is_last) for each candidate, and return the first result.

    start: raises `UnusableInterpreter` where the next program is to be tried.

    Raises:
        TemplateError: no program is usable; the message tells what each of them did.
        OSError: the kernel refused to start the only program, or any program.
        BaseException: start raised it.
    """
    programs = [find()]
    programs += _other_candidates(programs[0])
    failures = []
    for program in programs:
        try:
            return start(program, program is programs[-1])
        except UnusableInterpreter as error:
            failures.append(error)
        except OSError as error:
            if len(programs) == 1 or error.errno not in _ERRORS_OF_ONE_PROGRAM:
                raise
            failures.append(UnusableInterpreter(f"{program}: {error.strerror}"))
    problem = "; ".join(map(str, failures))
    if len(failures) > 1:
        problem = f"none of the programs that may be Python {_version()} can be used: {problem}"
    raise TemplateError(f"{problem}. {_HELP}.") from failures[-1]


class UnusableInterpreter(Exception):
    """A program that was started is no Python, or another one. The text names it, and tells what it did."""


# Errors of exec that are about one program. Another program may start.
_ERRORS_OF_ONE_PROGRAM = (errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ELOOP, errno.ENOEXEC, errno.ETXTBSY)
_NAME_ONE = "name one with multiprocessing.set_executable()"
_HELP = f"Its standard error may tell why. If it is not the Python interpreter that runs here, {_NAME_ONE}"


def _version() -> str:
    return "{}.{}".format(*sys.version_info)


def _set_by_user() -> str | None:
    """Return the program that multiprocessing.set_executable() was called with; None: it was not called."""
    spawn = sys.modules.get("multiprocessing.spawn")
    chosen = spawn.get_executable() if spawn is not None else None
    if not chosen:
        return None
    program = os.fsdecode(chosen)
    if program == sys.executable:
        return None  # the default
    if _is_this_program(program) and (getattr(sys, "frozen", False) or not is_usable(program)):
        return None  # the default as it was before the program corrected sys.executable
    if program == getattr(sys, "_base_executable", None) and not _is_this_program(sys.executable):
        return None  # the same, where the default was the first one in PATH
    return program


def _is_this_program(program: str | None) -> bool:
    """Return whether this process runs that program, whatever its name is."""
    if not program:
        return False
    try:
        return os.path.samefile(program, "/proc/self/exe")
    except OSError:
        return False


def is_usable(program: str | None) -> bool:
    """Return whether the file can be run, and its name is that of a Python of this version.

    Both names count, before and after links are followed. If one of them has another version, the file is not usable.
    """
    if not program or not os.path.isfile(program) or not _is_executable(program):
        return False
    names = {os.path.basename(path) for path in (program, os.path.realpath(program))}
    if names <= _USUAL_NAMES:
        return True
    found = [match for name in names if (match := re.fullmatch(_NAME, name))]
    return bool(found) and all(_is_this_version(match) for match in found)


def _is_executable(program: str) -> bool:
    """Return whether the effective user may run the file; the real user, where a sandbox has no faccessat2(2)."""
    return os.access(program, os.X_OK, effective_ids=True) or os.access(program, os.X_OK)


def _is_this_version(match: re.Match[str]) -> bool:
    parts = (match["major"], match["minor"])
    return all(part is None or int(part) == own for part, own in zip(parts, sys.version_info, strict=False))


def _is_certain(program: str) -> bool:
    """Return whether this is the Python that runs here: this process runs it, and it embeds no Python as a guest."""
    return _is_this_program(program) and is_usable(program)


def _other_candidates(first: str) -> list[str]:
    """Return the programs to try after the first, each program once; none, if the first is certain."""
    if first == _set_by_user() or _is_certain(first):
        return []
    known = {_identity(first)}
    found = []
    for program in _candidates():
        if is_usable(program) and _identity(program) not in known:
            known.add(_identity(program))
            found.append(program)
    return found


def _candidates() -> Iterator[str]:
    """Yield the paths where the Python of this process may be. A virtual environment comes before its base."""
    executable = sys.executable
    folders = list(dict.fromkeys(_folders()))
    # In an editor sys.executable is the first one in PATH, which may be anything. It is trusted if the file, or the
    # target of its link, lies in a folder in which this Python was installed.
    paths = (executable, os.path.realpath(executable)) if executable else ()
    is_installed = any(os.path.dirname(path) in folders for path in paths)
    if is_installed:
        yield executable
    names = dict.fromkeys((f"python{_version()}{sys.abiflags}", f"python{_version()}", "python3", "python"))
    for folder in folders:
        for name in names:
            yield os.path.join(folder, name)
    if executable and not is_installed:
        yield executable
    base = getattr(sys, "_base_executable", None)
    if base:
        for name in names:
            yield os.path.join(os.path.dirname(base), name)


def _folders() -> Iterator[str]:
    for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix):
        yield os.path.join(prefix, "bin")
    try:
        import sysconfig  # only here, because it is seldom needed and reads a file
    except ImportError:  # the file cannot be read: perhaps the process has changed its root directory
        return
    folder = sysconfig.get_config_var("BINDIR")
    if folder:
        yield folder


def _identity(program: str) -> tuple[str, str]:
    """Return a key that is equal for two names of one program.

    The folder is part of it, because the same program in another folder belongs to another environment.
    """
    return os.path.dirname(program), os.path.realpath(program)
