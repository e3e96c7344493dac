"""The messages about a script's globals that cannot travel, or that are too large to travel with each call.

In the host, for `script_calls` and `executor.unsendable`. The author of the script reads these messages. So they name
the global, its type, who uses it, why it cannot travel, and what to try.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

from pidfdpool.process import describe
from pidfdpool.serialization import namespaces
from pidfdpool.serialization.placeholder import REMEDIES

if TYPE_CHECKING:
    from pidfdpool.serialization.namespaces import Key

LARGE = 1 << 20  # bytes of a pickle; to make one this long takes about 5 ms, as long as thousands of small tasks

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_warned: set[Key] = set()  # names that this process has warned about


class OmittedValue:
    """Takes the place of a name's value in a pickle."""

    __slots__ = ("_key", "_message")

    def __init__(self, key: Key, message: str) -> None:
        self._key = key
        self._message = message

    def __reduce__(self) -> tuple[Any, tuple[str, str, str]]:
        return namespaces.script_value, (*self._key, self._message)


class Omission:
    """The reason why a global cannot travel."""

    def __init__(self, key: Key, kind: str, user: str | None, error: str) -> None:
        module, name = key
        of_script = module == "__main__"
        self._global = f"the script's global {name!r}" if of_script else f"the global {name!r} of module {module!r}"
        self._kind = kind
        self._user = user
        self._error = error

    def message(self, script_obstacle: str | None) -> str:
        """Return the message. script_obstacle: why running the script again does not make the global either."""
        used_by = f", used by {self._user!r}," if self._user is not None else ""
        text = f"{self._global} ({self._kind}){used_by} cannot be sent to a worker: {self._error}."
        if script_obstacle is not None:
            text += f" A worker cannot make it by running the script again either: {script_obstacle}."
        return f"{text} {REMEDIES}"


def describe_type(value: Any) -> str:
    """Return the name of an object's type for messages; for a class, that it is a class, and its metaclass."""
    kind = type(value)
    if isinstance(value, type):
        return f"a class of type {kind.__qualname__}"
    module = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
    return f"{module}{kind.__qualname__}"


def reason_of(error: BaseException) -> str:
    """Return an error's text without its last full stop, and with its type unless that is TypeError.

    Of an error without a text, return the type.
    """
    text, name = describe.text_of(error).rstrip(". "), describe.type_name(error)
    if not text:
        return name
    return text if type(error) is TypeError else f"{name}: {text}"


def warn_about_large(key: Key, size: int, user: str | None) -> None:
    """Warn, once per process and name, that a global is so large that it should not travel with each call."""
    if key in _warned:
        return
    _warned.add(key)
    from pidfdpool.errors import LargeGlobalWarning

    used_by = f", used by {user!r}," if user is not None else ""
    text = f"the script's global {key[1]!r}{used_by} is sent again with each call: {size / 1e6:.1f} MB. {REMEDIES}"
    warnings.warn(text, LargeGlobalWarning, stacklevel=_stacklevel_of_user())


def _stacklevel_of_user() -> int:
    """Return the stacklevel of the user's code, as seen from the caller of this function."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level
