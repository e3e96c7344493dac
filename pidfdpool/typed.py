"""What files use of `typing` without loading it, because that takes as long as all files that a template loads. Pure.

`Protocol` and `TypedDict` are base classes for type checkers. For these they are those of `typing`; at run time they
do almost nothing. The real ones process the annotations of each class that is made with them, which took a fifth of
the time in which the pool is imported.

`typing` stands for the module in annotations, such as `typing.Self`. The module is loaded when something evaluates
one, as `typing.get_type_hints` does. A name that is imported only for type checkers would not be found then.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import typing as typing
    from typing import Protocol as Protocol
    from typing import TypedDict as TypedDict
else:

    class _Typing:
        """Loads the module at the first use of a name."""

        def __getattr__(self, name: str) -> object:
            import typing

            return getattr(typing, name)

    typing = _Typing()

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
