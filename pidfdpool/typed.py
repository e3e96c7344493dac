"""Bases that only type checkers look at. For them it is `typing`'s own; at run time they are next to nothing.

`typing` compiles the annotations of each class that is made with its bases, which took a fifth of the time in which a
pool was imported. Pure.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol as Protocol
    from typing import TypedDict as TypedDict
else:

    class Protocol:
        """Describes what an object can do; nobody asks at run time whether one does."""

    class TypedDict:
        """Describes keyword arguments. `__annotations__` names those of the bases, too, as with the real one."""

        def __new__(cls, *args: object, **kwargs: object) -> dict[str, object]:
            """Make a dictionary, as the real one does."""
            return dict(*args, **kwargs)

        def __init_subclass__(cls, *, total: bool = True) -> None:
            inherited = {
                key: of for base in cls.__bases__ for key, of in vars(base).get("__annotations__", {}).items()
            }
            cls.__annotations__ = inherited | cls.__annotations__
