"""MODULE:FUNCTION, the name of the function that is applied to each document.

The name is looked up in the host, on its main thread, before anything is read; each kind of mistake has a message of
its own. It is looked up once more in each worker, where the module is already loaded, because the pool preloads it.
"""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pidfdpool.cli.usage import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


@dataclass(frozen=True, slots=True)
class Target:
    """The name of a function: the module, and the dotted path in the module.

    folder: where modules are looked for, too; empty: in the current directory.
    """

    module: str
    path: str
    folder: str = ""

    def for_cluster(self) -> Target:
        """Return the name for workers elsewhere, which have other current directories but may see the same files."""
        return Target(self.module, self.path, "" if sys.flags.safe_path else os.getcwd())

    def load(self) -> Callable[[Any], Any]:
        """Return the function itself; each process looks it up once.

        Raises:
            UsageError: there is no such function; the message suggests names that exist.
        """
        return _load(self)

    @property
    def takes_text(self) -> bool:
        """Whether it takes text by convention, as the functions named `loads` do: json, orjson, ujson, ..."""
        return self.path.rpartition(".")[2] == "loads"


def parse(text: str) -> Target:
    """Parse MODULE:FUNCTION. Raises UsageError if the text has another form."""
    module, colon, path = text.partition(":")
    if not colon or not module or not path:
        raise UsageError(f"{text!r} does not name a function: write MODULE:FUNCTION, such as json:loads")
    if "/" in module or module.endswith(".py"):
        likely = module.removeprefix("./").removesuffix(".py").replace("/", ".")
        raise UsageError(f"{module!r} is a file, not a module: did you mean {likely}:{path}?")
    if not all(module.split(".")):
        raise UsageError(f"{module!r} is not the name of a module: write MODULE:FUNCTION, such as json:loads")
    return Target(module, path)


@cache
def _load(target: Target) -> Callable[[Any], Any]:
    found: Any = _import(target.module, target.folder)
    where = f"module {target.module!r}"
    for name in target.path.split("."):
        try:
            inner = getattr(found, name)
        except AttributeError:
            raise UsageError(f"{where} has no attribute {name!r}{_suggestion(name, found)}") from None
        found, where = inner, f"{name!r} of {where}"
    if not callable(found):
        raise UsageError(f"{where} is not a function but {_indefinite(type(found).__name__)}")
    return found  # type: ignore[no-any-return]


def _import(name: str, folder: str) -> ModuleType:
    _look_in_current_directory(folder)
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise UsageError(
                f"there is no module {missing!r} in the current directory or the rest of sys.path"
            ) from None
        raise UsageError(_import_failed(name, error)) from error
    except (Exception, SystemExit) as error:
        raise UsageError(_import_failed(name, error)) from error


def _import_failed(name: str, error: BaseException) -> str:
    """Return a message that tells what the module raised, and on which line."""
    if isinstance(error, SyntaxError):
        place = f"{error.filename}:{error.lineno}"
    else:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{last.filename}:{last.lineno}"
    what = " ".join("".join(traceback.format_exception_only(error)[-1:]).split())
    return f"importing module {name!r} failed: {what}, at {place}"


def _look_in_current_directory(folder: str) -> None:
    """Add the current directory to sys.path, as `python -m` does and an installed script does not.

    folder: the host's, for workers elsewhere. Their interpreters may run with -P although that of the host does not.
    """
    here = folder or os.getcwd()
    if (folder or not (sys.flags.safe_path or "" in sys.path)) and here not in sys.path:
        sys.path.insert(0, here)


def _suggestion(name: str, holder: object) -> str:
    from difflib import get_close_matches

    matches = get_close_matches(name, [known for known in dir(holder) if not known.startswith("_")])
    return f": did you mean {' or '.join(matches)}?" if matches else ""


def _indefinite(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"
