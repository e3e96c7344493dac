"""Hands one record, or one warning, of a worker to this program's own loggers and filters.

Called by `log_emitter`, in its thread. It may raise whatever handlers and filters of the program's raise.
"""

from __future__ import annotations

import logging
import sys
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pidfdpool.process import safe_logging
from pidfdpool.serialization import log_records

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger("pidfdpool.logs")
_OF_WARNINGS = "py.warnings"
_MOST_PLACES = 10_000
# The places of workers' code that have warned already, as the module `warnings` and as this one note them.
_registry: dict[Any, Any] = {}
_shown: set[Any] = set()
_START = getattr(logging, "_startTime", 0)  # in nanoseconds from Python 3.13 on, in seconds before


def emit(
    data: bytes,
    slot: int,
    pid: int | None,
    task: int | None,
    function: str | None,
    kind: str = "worker",
    process: str = "PidfdPoolWorker",
) -> None:
    """Hand it over. Arguments as in `log_emitter`. kind: what has logged; process: the name of such processes."""
    try:
        form, fields = log_records.loads(data)
    except ValueError as error:
        safe_logging.log(_log, logging.WARNING, "a log record of %s %d cannot be read: %s", kind, slot, error)
        return
    origin = {
        "process": fields["process"] if pid is None else pid,
        "processName": f"{process}-{slot}",
        kind: slot,
        "task": task,
        "function": function,
    }
    if form is log_records.WARNING:
        _warn(fields, origin)
        return
    logger = logging.getLogger(fields["logger"])
    if logger.isEnabledFor(fields["levelno"]):
        logger.handle(_record(logger, fields, origin))


def _record(logger: logging.Logger, fields: Mapping[str, Any], origin: Mapping[str, Any]) -> logging.LogRecord:
    """Return a record of this process's, with all that it was not told when it was made."""
    record = _made(logger, fields)
    created = fields["created"]
    start = _START / 1e9 if isinstance(_START, int) else _START
    own = {name: fields[name] for name in ("created", "thread", "threadName", "taskName", "exc_text")}
    own |= {"msecs": float(int((created - int(created)) * 1000)), "relativeCreated": (created - start) * 1000}
    if not record.args:
        own["args"] = None
    if logging.getLevelName(fields["levelno"]).startswith("Level "):
        own["levelname"] = fields["levelname"]
    extra = {name: value for name, value in fields["extra"].items() if name not in _OF_EVERY_RECORD}
    record.__dict__.update(origin, **extra)
    record.__dict__.update(own)
    return record


_OF_EVERY_RECORD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}


def _made(logger: logging.Logger, fields: Mapping[str, Any]) -> logging.LogRecord:
    """Return a new record, as this program makes those of this logger: by its class and by the record factory.

    Both may be code of the program's, which looks at the name for instance, and may change the message. A record that
    they cannot make is made without them.
    """
    name, level, path, lineno = fields["name"], fields["levelno"], fields["pathname"], fields["lineno"]
    message, function, stack = fields["msg"], fields["funcName"], fields["stack_info"]
    try:
        return logger.makeRecord(name, level, path, lineno, message, (), None, function, None, stack)
    except Exception:
        return logging.LogRecord(name, level, path, lineno, message, (), None, function, stack)


# ---- warnings ------------------------------------------------------------------------------------------------------


def _warn(fields: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    """Warn in this process, by its filters. Each place warns once, in however many workers."""
    category, text = _category(fields["category"]), fields["text"]
    filename, lineno = fields["filename"], fields["lineno"]
    module = fields["module"] or filename.removesuffix(".py") or "<unknown>"
    if len(_registry) > _MOST_PLACES or len(_shown) > _MOST_PLACES:
        _registry.clear()
        _shown.clear()
    if getattr(logging, "_warnings_showwarning", None) is None:
        _warn_explicitly(text, category, filename, lineno, module)
    elif _is_shown(text, category, module, lineno, filename):
        _log_warning(warnings.formatwarning(text, category, filename, lineno, fields["line"]), fields, origin)


def _category(names: list[Any]) -> type[Warning]:
    """Return the first class of these that this process has: the warning's own, or the nearest of its bases."""
    for module, name in names:
        found: Any = sys.modules.get(module)
        for part in name.split("."):
            found = getattr(found, part, None)
        if isinstance(found, type) and issubclass(found, Warning):
            return found
    return UserWarning


def _warn_explicitly(text: str, category: type[Warning], filename: str, lineno: int, module: str) -> None:
    warning = _warning(text, category)
    try:
        warnings.warn_explicit(warning, type(warning), filename, lineno, module, _registry)
    except Warning:  # the filters make it an error, but nobody here has called what warns
        warnings.showwarning(warning, type(warning), filename, lineno)


def _warning(text: str, category: type[Warning]) -> Warning:
    """Return a warning that reads as the worker's did.

    It is made without the constructor of its class, which may take other arguments, or make another text of this one.
    """
    with suppress(Exception):  # its class has a `__new__` or a `__str__` of its own
        warning = category.__new__(category, text)
        if str(warning) == text:
            return warning
    return UserWarning(f"{category.__name__}: {text}")


def _is_shown(text: str, category: type[Warning], module: str, lineno: int, filename: str) -> bool:
    """Return whether the filters of `warnings` show this, and note that they have. As `warnings.warn_explicit`."""
    action = _action(text, category, module, lineno)
    if action in ("ignore", "always", "all"):
        return action != "ignore"
    key: tuple[Any, ...] = action, text, category
    if action != "once":
        key += (filename,) if action == "module" else (filename, lineno)
    if key in _shown:
        return False
    _shown.add(key)
    return True


def _action(text: str, category: type[Warning], module: str, lineno: int) -> str:
    for action, pattern, kind, of_module, line in warnings.filters:
        if (
            _matches(pattern, text)
            and issubclass(category, kind)
            and _matches(of_module, module)
            and line in (0, lineno)
        ):
            return action
    return getattr(warnings, "defaultaction", "default")


def _matches(pattern: Any, text: str) -> bool:
    return pattern is None or (pattern == text if isinstance(pattern, str) else bool(pattern.match(text)))


def _log_warning(text: str, fields: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    """Log a warning, as `logging.captureWarnings` does."""
    logger = logging.getLogger(_OF_WARNINGS)
    if not logger.isEnabledFor(logging.WARNING):
        return
    place = {name: fields[name] for name in ("lineno", "created", "process")}
    record = {
        "name": _OF_WARNINGS, "levelno": logging.WARNING, "levelname": "WARNING", "msg": text, "exc_text": None,
        "stack_info": None, "pathname": fields["filename"], "funcName": None, "thread": None, "threadName": None,
        "taskName": None, "extra": {}, **place,
    }  # fmt: skip
    logger.handle(_record(logger, record, origin))
