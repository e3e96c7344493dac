"""Base classes for type checkers only. For these they are those of `typing`; at run time they do almost nothing.

The base classes of `typing` process the annotations of each class that is made with them. This took a fifth of the
time in which the pool is imported. Pure.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol as Protocol
    from typing import TypedDict as TypedDict
else:

    class Protocol:
        """Describes the methods that an object has. Nothing checks them at run time."""

    class TypedDict:
        """Describes keyword arguments. As with the real one, `__annotations__` has those of the base classes, too."""

        def __new__(cls, *args: object, **kwargs: object) -> dict[str, object]:
            """Make a dictionary, as the real one does."""
            return dict(*args, **kwargs)

        def __init_subclass__(cls, *, total: bool = True) -> None:
            inherited = {
                key: of for base in cls.__bases__ for key, of in vars(base).get("__annotations__", {}).items()
            }
            cls.__annotations__ = inherited | cls.__annotations__
