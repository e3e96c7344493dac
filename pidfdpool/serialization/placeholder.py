"""What stands in a worker for a global of the script that could not travel.

Nothing is wrong until a task uses it. Then it raises, and says which global of which function it was and what helps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import NoReturn


class Unavailable:
    """Raises whatever is done with it, but that it may be passed on, compared by identity and shown."""

    __slots__ = ("_cause", "_why")

    def __init__(self, why: str, cause: Exception | None = None) -> None:
        """why: what to say when it is used. cause: what stood in the way, in this process."""
        object.__setattr__(self, "_why", why)
        object.__setattr__(self, "_cause", cause)

    def __repr__(self) -> str:
        return f"<not available here: {object.__getattribute__(self, '_why')}>"


def _refuse(self: Any, *_arguments: Any, **_keywords: Any) -> NoReturn:
    from pidfdpool.errors import GlobalNotAvailable

    raise GlobalNotAvailable(object.__getattribute__(self, "_why")) from object.__getattribute__(self, "_cause")


# Whatever the interpreter looks up in the class and not in the object. `__class__` and what comes with it are left
# alone: debuggers and tracebacks look at those.
_OPERATORS = (
    "add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow", "lshift", "rshift", "and",
    "xor", "or",
)  # fmt: skip
_USES = (
    "getattr", "setattr", "delattr", "call", "getitem", "setitem", "delitem", "contains", "iter", "next",
    "reversed", "len", "length_hint", "bool", "enter", "exit", "aenter", "aexit", "await", "aiter", "anext",
    "eq", "ne", "lt", "le", "gt", "ge", "hash", "int", "float", "complex", "index", "round", "trunc", "floor",
    "ceil", "neg", "pos", "abs", "invert", "bytes", "str", "format", "fspath", "buffer", "reduce", "reduce_ex",
    "copy", "deepcopy", "instancecheck", "subclasscheck", "mro_entries",
)  # fmt: skip
for _use in (*_USES, *(kind + each for each in _OPERATORS for kind in ("", "r", "i"))):
    setattr(Unavailable, f"__{_use}__", _refuse)
