"""Describes any object in a message, and never raises, whatever the object's own code does.

Called by every room, in any process, on any thread.

`str(error)`, `repr(error)`, `type(error).__name__` and the format of a string can all run code of the user's: methods
of an exception, a property of a metaclass, a subclass of str. So all functions here return instances of str itself.

A signal handler of the host's may run meanwhile. If it raises to end the program, that is raised here, too.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_name = vars(type)["__name__"].__get__  # not by attribute access, which asks the metaclass
# Functions of Python and of C, and classes without a metaclass: to ask these for their names runs no other code.
_SIMPLE = (type(lambda: None), type(len), type)


def plain(text: str) -> str:
    """Return a string's characters as an instance of str itself."""
    return text if type(text) is str else str.__str__(text)


def type_name(value: object) -> str:
    """Return the name of an object's type."""
    return plain(_name(type(value)))


def text_of(value: object) -> str:
    """Return str(value)."""
    try:
        return plain(str(value))
    except BaseException as error:
        if _comes_from_handler(error):
            raise
        return "(it has no text)"


def repr_of(value: object) -> str:
    """Return repr(value)."""
    try:
        return plain(repr(value))
    except BaseException as error:
        if _comes_from_handler(error):
            raise
        return f"<{type_name(value)}, whose repr() fails>"


def _comes_from_handler(error: BaseException) -> bool:
    # Every host of a pool has this module loaded. Other processes have no use for it, and do not load it here.
    interruptible = sys.modules.get("pidfdpool.process.interruptible")
    return interruptible is not None and bool(interruptible.is_exit_request_of_handler(error))


def error_text(error: BaseException) -> str:
    """Return "type: text" of an exception."""
    return f"{type_name(error)}: {text_of(error)}"


def name_of(function: Any) -> str:
    """Return the name of a function, or of another callable: "module.qualname".

    Each submit asks for it. What a signal handler raises meanwhile goes on, in the thread that runs handlers.
    """
    if type(function) in _SIMPLE:
        name, module = function.__qualname__, function.__module__
        if type(name) is str and type(module) is str:
            return f"{module}.{name}" if module else name
    try:
        # If it is no plain function, it may be a functools.partial.
        inner = function if type(function) is type(name_of) else getattr(function, "func", function)
        name = getattr(inner, "__qualname__", None)
        module = getattr(inner, "__module__", None)
        name = plain(name) if isinstance(name, str) and name else type(inner).__qualname__
        return f"{plain(module)}.{plain(name)}" if isinstance(module, str) and module else plain(name)
    except BaseException as error:
        interruptible = sys.modules.get("pidfdpool.process.interruptible")  # as in `_comes_from_handler`
        if interruptible is not None and interruptible.is_exit_request(error):
            raise
        return type_name(function)
