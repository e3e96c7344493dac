"""What messages say of objects that are not ours. Nothing here raises, whatever the objects' own code does.

`str(error)`, `repr(error)`, `type(error).__name__` and the format of a string can all be code of the user's: methods
of an exception, a property of a metaclass, a subclass of str. So what is returned here is plain text, of the class
str itself. In any process; imports nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_name = vars(type)["__name__"].__get__  # not by attribute access, which asks the metaclass


def plain(text: str) -> str:
    """Return a string's characters as a string of no other class than str."""
    return text if type(text) is str else str.__str__(text)


def type_name(value: object) -> str:
    """Return the name of an object's type."""
    return plain(_name(type(value)))


def text_of(value: object) -> str:
    """Return str(value)."""
    try:
        return plain(str(value))
    except BaseException:
        return "(it has no text)"


def repr_of(value: object) -> str:
    """Return repr(value)."""
    try:
        return plain(repr(value))
    except BaseException:
        return f"<{type_name(value)}, whose repr() fails>"


def said(error: BaseException) -> str:
    """Return an exception's type and text."""
    return f"{type_name(error)}: {text_of(error)}"


def name_of(function: Any) -> str:
    """Return what to call a function, or whatever is called instead: "module.qualname"."""
    try:
        # Whatever else is called may be a functools.partial.
        inner = function if type(function) is type(name_of) else getattr(function, "func", function)
        name = getattr(inner, "__qualname__", None)
        module = getattr(inner, "__module__", None)
        name = plain(name) if isinstance(name, str) and name else type(inner).__qualname__
        return f"{plain(module)}.{plain(name)}" if isinstance(module, str) and module else plain(name)
    except BaseException:
        return type_name(function)
