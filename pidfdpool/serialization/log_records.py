"""What travels of a log record or of a warning: plain data, made in a worker and read in the host.

A worker makes it on the thread that logs (`worker.log_forwarding`). The host reads it on the thread that hands
records to the host's loggers (`loop.log_emission`). What a worker writes is not believed there: the pickle may name
no class and no function, so nothing of it runs code, and every field has to be of its type.
"""

from __future__ import annotations

import _pickle
from io import BytesIO

from pidfdpool.process import describe
from pidfdpool.transport.frame_rules import MAX_LOG_RECORD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_PROTOCOL = 5
_LONGEST = (1 << 16, 1 << 12)  # characters of a text; the second if the record is still too large
_MAX_DEPTH = 8  # containers within containers
_MAX_PARTS = 2000  # of all containers of a record together
_MAX_BITS = 1 << 12  # of an integer
_EXACT = frozenset({bool, type(None), float})
_CONTAINERS = frozenset({dict, list, tuple, set, frozenset})
_TEXT, _LINE, _SECONDS = (str,), (int,), (float, int)
_OPTIONAL = (str, type(None))
# The types of the fields. Those of a record are attributes of a `logging.LogRecord`, `extra` holds all others, and
# `logger` is the name of the logger that was to handle it, mostly the record's own.
RECORD: dict[str, tuple[type, ...]] = {
    "logger": _TEXT, "name": _TEXT, "levelno": _LINE, "levelname": _TEXT, "msg": (object,), "exc_text": _OPTIONAL,
    "stack_info": _OPTIONAL, "pathname": _TEXT, "lineno": _LINE, "funcName": _OPTIONAL, "created": _SECONDS,
    "thread": (int, type(None)), "threadName": _OPTIONAL, "taskName": (object,), "process": _LINE, "extra": (dict,),
}  # fmt: skip
WARNING: dict[str, tuple[type, ...]] = {
    "text": _TEXT, "category": (list,), "filename": _TEXT, "lineno": _LINE, "module": _OPTIONAL, "line": _OPTIONAL,
    "created": _SECONDS, "process": _LINE,
}  # fmt: skip


def dumps(fields: dict[str, Any]) -> bytes:
    """Return the fields of a record or of a warning as a pickle of plain data, of MAX_LOG_RECORD at most.

    What is not plain is replaced by its repr(), and texts that are too long are cut. Calls no code but `__repr__`.
    """
    for longest in _LONGEST:
        make = _Plain(longest).make
        made = {name: make(value, _MAX_DEPTH) for name, value in fields.items()}
        if type(made.get("extra", made)) is not dict:
            made["extra"] = {}  # they are too many to be sent
        data = _pickle.dumps(made, _PROTOCOL)
        if len(data) <= MAX_LOG_RECORD:
            return data
    make = _Plain(_LONGEST[1]).make
    rest = {name: make(value, 0) for name, value in fields.items()}
    if "extra" in rest:
        rest["extra"] = {}
    return _pickle.dumps(rest, _PROTOCOL)


class _Plain:
    """Makes plain data of one record's values: None, numbers, text, bytes, and containers of these."""

    def __init__(self, longest: int) -> None:
        """longest: characters of a text."""
        self._longest = longest
        self._parts = _MAX_PARTS  # that may still be looked at: a list may hold itself, or another one many times

    def make(self, value: Any, depth: int) -> Any:
        """Return the value as plain data. What cannot be that is its repr(). depth: of containers in it."""
        kind = type(value)
        self._parts -= 1
        if kind is str:
            return self._cut(value)
        if kind in _EXACT or (kind is int and value.bit_length() <= _MAX_BITS):
            return value
        if kind is int:
            return f"<an integer of {value.bit_length()} bits>"
        if kind is bytes and len(value) <= self._longest:
            return value
        if depth and 0 < len(value if kind in _CONTAINERS else ()) <= self._parts:
            if kind is dict:
                pairs = list(value.items())
                return {self.make(key, depth - 1): self.make(item, depth - 1) for key, item in pairs}
            return kind([self.make(item, depth - 1) for item in list(value)])
        if kind in _CONTAINERS and not value:
            return kind()
        return self._cut(describe.plain(value) if isinstance(value, str) else describe.repr_of(value))

    def _cut(self, text: str) -> str:
        """Return the text, or its beginning and how much is missing."""
        longest = self._longest
        return text if len(text) <= longest else f"{text[:longest]}... ({len(text) - longest} more characters)"


class _PlainUnpickler(_pickle.Unpickler):
    """Loads plain data, and refuses everything that has a name."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _pickle.UnpicklingError(f"it names {module}.{name}")


def loads(data: bytes) -> tuple[dict[str, tuple[type, ...]], dict[str, Any]]:
    """Return RECORD or WARNING, whichever the fields are of, and the fields.

    Raises:
        ValueError: it is neither.
    """
    try:
        fields = _PlainUnpickler(BytesIO(data)).load()
    except Exception as error:
        raise ValueError(f"it is no plain data: {describe.error_text(error)}") from None
    if type(fields) is not dict:
        raise ValueError("it has no fields")
    form = RECORD if "levelno" in fields else WARNING
    if fields.keys() != form.keys():
        raise ValueError("its fields are not those of a record")
    for name, types in form.items():
        if not isinstance(fields[name], types):
            raise ValueError(f"its field {name} is {type(fields[name]).__name__}")
    if form is RECORD and not all(type(name) is str for name in fields["extra"]):
        raise ValueError("an attribute of it has no name")
    return form, fields
