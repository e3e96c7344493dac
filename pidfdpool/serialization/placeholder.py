"""What stands in a worker for a global of the script that could not travel.

Nothing is wrong until a task uses it. Then it raises, and says which global of which function it was and what helps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import NoReturn


class Placeholder:
    """Raises whatever is done with it, but that it may be passed on, compared by identity and shown."""

    __slots__ = ("_cause", "_message")

    def __init__(self, message: str, cause: Exception | None = None) -> None:
        """why: what to say when it is used. cause: what stood in the way, in this process."""
        object.__setattr__(self, "_message", message)
        object.__setattr__(self, "_cause", cause)

    def __repr__(self) -> str:
        return f"<not available here: {object.__getattribute__(self, '_message')}>"


def _raise_not_available(self: Any, *_arguments: Any, **_keywords: Any) -> NoReturn:
    from pidfdpool.errors import GlobalNotAvailable

    raise GlobalNotAvailable(object.__getattribute__(self, "_message")) from object.__getattribute__(self, "_cause")


# Whatever the interpreter looks up in the class and not in the object. `__class__` and what comes with it are left
# alone: debuggers and tracebacks look at those.
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
