"""The object that stands in a worker for a global of the script that could not be sent there.

`namespaces` makes it, on the worker's only thread. It does no harm until a task uses it. Then it raises
GlobalNotAvailable, which says which global of which function it was, why it is missing, and what to try.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import NoReturn

REMEDIES = (
    "Make it in each worker (initializer=...), or move it into a module that workers import, or have workers inherit "
    "it (mp_context='fork')."
)  # what messages advise for a global that cannot travel, or should not


class Placeholder:
    """Raises on every use. It may only be passed on, compared by identity, and shown by repr()."""

    __slots__ = ("_cause", "_message")

    def __init__(self, message: str, cause: Exception | None = None) -> None:
        """message: the text of the error that each use raises. cause: the error that stood in the way here."""
        object.__setattr__(self, "_message", message)
        object.__setattr__(self, "_cause", cause)

    def __repr__(self) -> str:
        return f"<not available here: {object.__getattribute__(self, '_message')}>"


def _raise_not_available(self: Any, *_arguments: Any, **_keywords: Any) -> NoReturn:
    from pidfdpool.errors import GlobalNotAvailable

    raise GlobalNotAvailable(object.__getattribute__(self, "_message")) from object.__getattribute__(self, "_cause")


# All special methods that the interpreter looks up in the class and not in the object. `__class__` and what comes
# with it are left out, because debuggers and tracebacks look at those.
_BINARY_OPERATORS = (
    "add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow", "lshift", "rshift", "and",
    "xor", "or",
)  # fmt: skip
_OPERATIONS = (
    "getattr", "setattr", "delattr", "call", "getitem", "setitem", "delitem", "contains", "iter", "next",
    "reversed", "len", "length_hint", "bool", "enter", "exit", "aenter", "aexit", "await", "aiter", "anext",
    "eq", "ne", "lt", "le", "gt", "ge", "hash", "int", "float", "complex", "index", "round", "trunc", "floor",
    "ceil", "neg", "pos", "abs", "invert", "bytes", "str", "format", "fspath", "buffer", "reduce", "reduce_ex",
    "copy", "deepcopy", "instancecheck", "subclasscheck", "mro_entries",
)  # fmt: skip
for _operation in (*_OPERATIONS, *(kind + each for each in _BINARY_OPERATORS for kind in ("", "r", "i"))):
    setattr(Placeholder, f"__{_operation}__", _raise_not_available)
