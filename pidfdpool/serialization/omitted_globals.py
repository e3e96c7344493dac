"""What is said of the globals of a script that cannot travel, and of those that are too large to travel each time.

In the host, for `script_calls`. The texts go to whoever wrote the script, so they name the global, its type, who uses
it, why it cannot travel, and what helps.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

from pidfdpool.process import describe
from pidfdpool.serialization import namespaces

if TYPE_CHECKING:
    from pidfdpool.serialization.namespaces import Key

LARGE = 1 << 20  # bytes of a pickle, which takes some 5 ms to make: as long as thousands of small tasks
REMEDIES = (
    "Make it in each worker (initializer=), or put it into a module that workers import, or have workers inherit it "
    "(mp_context='fork')."
)

_HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_warned: set[Key] = set()  # names that were warned of, in this process


class LeftOut:
    """Stands in a pickle for the value of a name."""

    __slots__ = ("_key", "_why")

    def __init__(self, key: Key, why: str) -> None:
        self._key = key
        self._why = why

    def __reduce__(self) -> tuple[Any, tuple[str, str, str]]:
        return namespaces.from_script, (*self._key, self._why)


class Why:
    """Why a global cannot travel."""

    def __init__(self, key: Key, kind: str, user: str | None, error: str) -> None:
        module, name = key
        of_script = module == "__main__"
        self._named = f"the script's global {name!r}" if of_script else f"the global {name!r} of module {module!r}"
        self._kind = kind
        self._user = user
        self._error = error

    def told(self, why_not_by_script: str | None) -> str:
        """Return it for a person. why_not_by_script: why it is not made by running the script again, either."""
        used = f", which {self._user} uses," if self._user is not None else ""
        text = f"{self._named} ({self._kind}){used} cannot be sent to a worker: {self._error}."
        if why_not_by_script is not None:
            text += f" Nor can a worker make it by running the script again: {why_not_by_script}."
        return f"{text} {REMEDIES}"


def kind_of(value: Any) -> str:
    """Return the name of an object's type, for people; for a class or function what that is."""
    kind = type(value)
    if isinstance(value, type):
        return f"a class of type {kind.__qualname__}"
    module = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
    return f"{module}{kind.__qualname__}"


def said(error: BaseException) -> str:
    """Return an error's text without its last full stop, and with its type if that is not pickle's own."""
    text = describe.text_of(error).rstrip(". ")
    return text if type(error) is TypeError else f"{describe.type_name(error)}: {text}"


def warn_of_large(key: Key, size: int, user: str | None) -> None:
    """Warn, once in a process, of a global that is so large that it matters to send it with each call."""
    if key in _warned:
        return
    _warned.add(key)
    from pidfdpool.errors import LargeGlobalWarning

    used = f", which {user} uses," if user is not None else ""
    text = f"the script's global {key[1]!r}{used} travels with each call: {size / 1e6:.1f} MB. {REMEDIES}"
    warnings.warn(text, LargeGlobalWarning, stacklevel=_frames_of_ours())


def _frames_of_ours() -> int:
    """Return the stacklevel at which the user's code is, seen from who calls this."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HOME):
        level, frame = level + 1, frame.f_back
    return level
