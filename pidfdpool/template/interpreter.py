"""Finds the program to start a template with: a Python of the kind that runs here.

Nearly always that is sys.executable. But Python may be a guest in another program (an editor, uWSGI, Apache, an
application with a built-in console), and sys.executable is then that program, or the first "python3" in PATH, or
empty. Started with our arguments, a server would run a second time, and a frozen application would start another one
of itself, which starts another. So nothing is started that does not bear the name of a Python of this version.

The first "python3" in PATH may be anything: a script that starts one Python or another, depending on the directory.
So where there is a doubt, what lies in sys.prefix comes first, and what does not answer, or turns out to be another
Python, is followed by the next.
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
_NAME = re.compile(r"(?:python|pypy)(?:(?P<major>\d)(?:\.(?P<minor>\d+)[.\d]*)?)?[a-z]{0,3}(?:-dbg|-debug)?")


def find() -> str:
    """Return the path of the Python to start: the likeliest one, where there is a doubt.

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


def first_to_answer(start: Callable[[str, bool], T]) -> T:
    """Return what start(program, whether it is the last) returns for the first program that is not `Unfit`.

    Raises:
        TemplateError: all of them are; the message tells what each of them did.
        OSError: the kernel refused to start the only one, or any.
        BaseException: start raised it.
    """
    programs = [find()]
    programs += _others(programs[0])
    refused = []
    for program in programs:
        try:
            return start(program, program is programs[-1])
        except Unfit as error:
            refused.append(error)
        except OSError as error:
            if len(programs) == 1 or error.errno not in _ABOUT_THE_PROGRAM:
                raise
            refused.append(Unfit(f"{program}: {error.strerror}"))
    told = "; ".join(map(str, refused))
    if len(refused) > 1:
        told = f"none of the programs that may be Python {_version()} can be used: {told}"
    raise TemplateError(f"{told}. {_HELP}.") from refused[-1]


class Unfit(Exception):
    """A program that was started is no Python, or another one. The text tells which, and what it did."""


# What the kernel says of one program. The next may do better.
_ABOUT_THE_PROGRAM = (errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ELOOP, errno.ENOEXEC, errno.ETXTBSY)
_NAME_ONE = "name one with multiprocessing.set_executable()"
_HELP = f"Its standard error may say why. If it is not the Python interpreter that runs here, {_NAME_ONE}"


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
    if program == getattr(sys, "_base_executable", None) and not _runs_here(sys.executable):
        return None  # the same, where it was the first one in PATH
    return program


def _runs_here(program: str | None) -> bool:
    """Return whether this process runs that program, under whichever name."""
    if not program:
        return False
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


def _is_certain(program: str) -> bool:
    """Return whether this is the Python that runs here: the process runs it, and it is no guest's host."""
    return _runs_here(program) and is_usable(program)


def _others(first: str) -> list[str]:
    """Return what else may be the Python to start, each program once; none, if there is no doubt about the first."""
    if first == _named_by_the_user() or _is_certain(first):
        return []
    known = {_place(first)}
    found = []
    for program in _candidates():
        if is_usable(program) and _place(program) not in known:
            known.add(_place(program))
            found.append(program)
    return found


def _candidates() -> Iterator[str]:
    """Yield where the Python of this process may be. The virtual environment comes before what it was made from."""
    executable = sys.executable
    folders = list(dict.fromkeys(_folders()))
    # In an editor it is the first one in PATH, which may be anything. Our own lies, or leads, where it was installed.
    paths = (executable, os.path.realpath(executable)) if executable else ()
    is_known = any(os.path.dirname(path) in folders for path in paths)
    if is_known:
        yield executable
    names = dict.fromkeys((f"python{_version()}{sys.abiflags}", f"python{_version()}", "python3", "python"))
    for folder in folders:
        for name in names:
            yield os.path.join(folder, name)
    if executable and not is_known:
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
    except ImportError:  # not even that can be read: the process has changed its root directory, perhaps
        return
    told = sysconfig.get_config_var("BINDIR")
    if told:
        yield told


def _place(program: str) -> tuple[str, str]:
    """Return what is the same for two names of one program. In another folder it belongs to another environment."""
    return os.path.dirname(program), os.path.realpath(program)
