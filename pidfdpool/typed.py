"""What files use of `typing` without loading it, because that takes as long as all files that a template loads. Pure.

This is what is there at run time. Type checkers and editors read typed.pyi, where all names are those of `typing`.

`Protocol` and `TypedDict` are base classes that do almost nothing. The real ones process the annotations of each
class that is made with them, which took a fifth of the time in which the pool is imported.

`typing` stands for the module in annotations, such as `typing.Self`. The module is loaded when something evaluates
one, as `typing.get_type_hints` does. A name that is imported only for type checkers would not be found then.
"""

from __future__ import annotations


class Protocol:
    """Describes the methods that an object has. Nothing checks them at run time."""


class TypedDict:
    """Describes keyword arguments. As with the real one, `__annotations__` has those of the base classes, too."""

    def __new__(cls, *args: object, **kwargs: object) -> dict[str, object]:
        """Make a dictionary, as the real one does."""
        return dict(*args, **kwargs)

    def __init_subclass__(cls, *, total: bool = True) -> None:
        inherited = {key: of for base in cls.__bases__ for key, of in vars(base).get("__annotations__", {}).items()}
        cls.__annotations__ = inherited | cls.__annotations__


class _Typing:
    """Loads the module at the first use of one of its names."""

    def __getattr__(self, name: str) -> object:
        import typing

        return getattr(typing, name)


typing = _Typing()
