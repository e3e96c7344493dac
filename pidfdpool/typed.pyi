"""What type checkers and editors see instead of typed.py."""

import typing as typing
from typing import Any
from typing import Protocol as Protocol

TYPE_CHECKING = False  # type checkers take it for True, whatever it is
if TYPE_CHECKING:
    from typing import TypedDict as TypedDict
else:
    # For jedi, which completes names in editors. It lists the fields of a dataclass as keywords, but not those of a
    # TypedDict.
    @typing.dataclass_transform(kw_only_default=True)
    class TypedDict(dict[str, Any]): ...
