"""Payloads of calls whose function workers import by its name: the pickle of the arguments, and the name behind it.

A class is such a function, too, and so is a function that a module in C defines.

Most calls are of this kind. A pickle of the whole call would look the function up twice, once when it is made and
once when it is loaded, and each of the two takes as long as everything else of a small pickle. Here both sides look
the name up in the module's dictionary, at each use: so a name that is bound to another function is noticed.

    the pickle of the arguments, a tuple | module:name | length of that, one byte | MARK

The host makes them on any thread that submits (`dumps`), the worker loads them on its only thread (`loads`). The two
dictionaries hold names only and keep nothing alive; whatever is in them is checked when it is used.
"""

from __future__ import annotations

import _pickle as pickle
import sys
from types import BuiltinFunctionType, FunctionType, ModuleType

from pidfdpool.serialization import exception_chains, importable, picklers, plain_data

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pidfdpool.transport.framing import Buffer

MARK = 2  # no pickle ends with such a byte; see `payload.HIGHEST_MARK` for the others
_MOST_NAMES = 1000
_NUMBERS = frozenset({int, float, bool, type(None)})  # in their pickles there is nothing to search for
_NO_ARGUMENTS = pickle.dumps((), picklers.PROTOCOL)
_EMPTY_TUPLE = 0x29  # its opcode, the third byte of a pickle of nothing else

_modules: dict[str, Any] = sys.modules
_endings: dict[int, tuple[str, str, bytes]] = {}  # by a function's id: its module, its name, what ends its calls
_names: dict[bytes, tuple[str, str]] = {}  # what ends a call, before the two last bytes -> module and name


def dumps(function: Any, arguments: tuple[Any, ...]) -> bytes | None:
    """Return the payload of a call; None: it is not of this kind, or something of it needs a closer look.

    Raises:
        MemoryError: there is no memory for the pickle.
    """
    kind = type(function)
    # A method of an object that is kept in a module, such as random.random, is of the third type, too.
    if (
        kind is not FunctionType
        and kind is not type
        and (kind is not BuiltinFunctionType or type(function.__self__) is not ModuleType)
    ):
        return None
    end: bytes | None = None
    known = _endings.get(id(function))
    if known is not None:
        module_name, name, end = known
        module: Any = _modules.get(module_name)
        if (
            function.__qualname__ != name
            or function.__module__ != module_name
            or type(module) is not ModuleType
            or module.__dict__.get(name) is not function
        ):
            end = None  # it was known of a function that is gone, or this one is not found by its name any more
            _endings.pop(id(function), None)
    if end is None:
        end = _ending_of(function)
        if end is None:
            return None
    if not arguments:
        return _NO_ARGUMENTS + end
    if _NUMBERS.issuperset(map(type, arguments)):
        return pickle.dumps(arguments, picklers.PROTOCOL) + end
    try:
        data = picklers.dumps(arguments)
    except MemoryError:
        raise
    except Exception as error:
        exception_chains.pass_over(error)
        return None
    return data + end if _names_nothing_special(data, arguments) else None


def _names_nothing_special(data: bytes, arguments: tuple[Any, ...]) -> bool:
    """Return whether workers can import all that the pickle names. As `payload.dumps` finds it out."""
    if len(data) >= plain_data.SEARCHED_BELOW and plain_data.is_plain(arguments, len(data)):
        return True
    if b"main__" in data:
        return False
    return picklers.STACK_GLOBAL not in data or not importable.mentions_unimportable(data)


def _ending_of(function: FunctionType | BuiltinFunctionType | type) -> bytes | None:
    """Return what ends a function's calls; None: workers do not find it by its name."""
    module_name, name = function.__module__, function.__qualname__
    if type(module_name) is not str or type(name) is not str:
        return None
    if "main__" in module_name or "." in name or ":" in name:
        return None
    module = _modules.get(module_name)
    if type(module) is not ModuleType or module.__dict__.get(name) is not function:
        return None
    try:
        names = f"{module_name}:{name}".encode()
    except UnicodeEncodeError:
        return None
    if len(names) > 255 or b"main__" in names or not importable.is_importable(module_name, module):
        return None
    if len(_endings) >= _MOST_NAMES:
        _endings.clear()
    end = names + bytes((len(names), MARK))
    _endings[id(function)] = module_name, name, end
    return end


def loads(data: Buffer) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Return the function, the arguments and the keyword arguments of a call.

    Raises:
        Exception: what pickle raises where it does not find the function, or what an argument raises.
    """
    key = data[-2 - data[-2] : -2]
    if type(key) is not bytes:
        key = bytes(key)
    names = _names.get(key) or _names_in(key)
    module = _modules.get(names[0])
    function = module.__dict__.get(names[1]) if type(module) is ModuleType else None
    if function is None:  # its module is yet to be imported, or is not what it was in the host
        function = _import(*names)
    return function, () if data[2] == _EMPTY_TUPLE else pickle.loads(data), {}


def _names_in(key: bytes) -> tuple[str, str]:
    if len(_names) >= _MOST_NAMES:
        _names.clear()
    module_name, _, name = key.decode().rpartition(":")
    names = _names[key] = module_name, name
    return names


def _import(module_name: str, name: str) -> Any:
    """Import a function as pickle does, with its errors."""
    texts = b"".join(b"\x8c" + bytes((len(text),)) + text for text in (module_name.encode(), name.encode()))
    return pickle.loads(b"\x80\x05" + texts + picklers.STACK_GLOBAL + b".")
