"""Sends what a worker logs and warns of to the host, instead of to the handlers that the worker has inherited.

Set up by the worker's loop (`process`) before the initializer. From then on it runs on whichever thread logs. It
takes the place of `logging.Logger.callHandlers`, and so sees the records of all loggers after the worker's levels and
filters, wherever `propagate` ends; and of `warnings.showwarning`. A program that replaces these afterwards has its
own way. `logging` is not loaded for this: most tasks never log.

Which handlers of the worker's are called, beside the host's:

* If the user asked for forwarding (`always`), those that the initializer or a task has made. Those that were there
  before are the host's own, or stand for these, and would write each record once more.
* By default all, and what any of them gets is not sent: the worker looks after itself, as with the standard pool.
"""

from __future__ import annotations

import _pickle
import os
import sys
import time
import warnings
from contextlib import suppress
from functools import partial

from pidfdpool.process import describe
from pidfdpool.serialization import log_records
from pidfdpool.transport import framing
from pidfdpool.worker import context, import_hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from logging import Handler, Logger, LogRecord
    from typing import Any, TypeAlias

    from pidfdpool.process.log_levels import Levels
    from pidfdpool.transport.framing import Buffer

    # always; the least level; the names of loggers, or None: all; the host's levels. Plain data, a part of `Boot`.
    Settings: TypeAlias = tuple[bool, int, tuple[str, ...] | None, Levels]

WARNING = 30  # logging.WARNING, the level of what `warnings` tells
_OF_WARNINGS = "py.warnings"
_END_OF_TIME = 1e15  # seconds
# Attributes of each record. All others were added by the program, and travel as they are.
_KNOWN = frozenset(
    {
        "args", "asctime", "created", "exc_info", "exc_text", "filename", "funcName", "levelname", "levelno",
        "lineno", "message", "module", "msecs", "msg", "name", "pathname", "process", "processName",
        "relativeCreated", "stack_info", "taskName", "thread", "threadName",
    }
)  # fmt: skip


def install(settings: Settings, post: Callable[[list[Buffer]], None]) -> Forwarding:
    """Set it up in this worker. post: sends a frame from any thread, even in the middle of another one."""
    forwarding = Forwarding(settings, post)
    logging = sys.modules.get("logging")
    if logging is None:
        import_hook.when_loaded("logging", forwarding.take_over_logging)
    else:
        forwarding.take_over_logging(logging)
    forwarding.take_over_warnings()
    return forwarding


class Forwarding:
    """The records and the warnings of one worker. Thread-safe."""

    def __init__(self, settings: Settings, post: Callable[[list[Buffer]], None]) -> None:
        self._always, self._least, self._names, self._levels = settings
        self._post: Callable[[list[Buffer]], None] | None = post
        self._logging: Any = None
        self._applied: Levels | None = None
        self._inherited: dict[int, Handler] = {}  # handlers that are not called, by id
        self._call_handlers: Callable[[Logger, LogRecord], None]  # the original one
        self._show_warning: Callable[..., None]
        self._covered: dict[str, bool] = {}  # whether a logger is one of `_names`, or below one

    def stop(self) -> None:
        """Send nothing any more: in a process that a task has forked. Records go to the handlers that it has."""
        self._post = None

    # ---- logging -------------------------------------------------------------------------------------------

    def take_over_logging(self, logging: Any) -> None:
        """Get all records from now on. logging: the module."""
        self._logging = logging
        if self._always:
            self._inherited = {id(made): made for one in logging._handlerList if (made := one()) is not None}
        self._call_handlers = logging.Logger.callHandlers
        take = self._take

        def call_handlers(logger: Logger, record: LogRecord) -> None:
            take(logger, record)

        logging.Logger.callHandlers = call_handlers
        self._take_over_basic_config(logging)
        self._apply_levels()

    def _take_over_basic_config(self, logging: Any) -> None:
        """Have `logging.info(...)` and its kin make no handler: they do if the root logger has none, as here."""
        basic_config, own = logging.basicConfig, vars(logging)

        def make_handler(**options: Any) -> None:
            if sys._getframe(1).f_globals is own and self._post is not None and self._covers(logging.root.name):
                return  # the host's handlers get the record
            basic_config(**options)

        make_handler.__doc__ = basic_config.__doc__
        logging.basicConfig = make_handler

    def set_levels(self, data: Buffer) -> None:
        """Have the levels that the host has now. data: they, pickled."""
        self._levels = _pickle.loads(data)
        if self._logging is not None:
            self._apply_levels()

    def _apply_levels(self) -> None:
        from pidfdpool.process import log_levels

        with suppress(Exception):  # a subclass of Logger has a `setLevel` of its own
            log_levels.apply(self._levels, self._applied)
        self._applied = self._levels

    def _take(self, logger: Logger, record: LogRecord) -> None:
        post = self._post
        if post is None or record.levelno < self._least or not self._covers(logger.name):
            self._call_handlers(logger, record)
            return
        if self._call_own(logger, record) and not self._always:
            return
        with suppress(Exception):  # not even its level is what it is in every record
            data = self._dump(logger, record)
            post(framing.encode(framing.LOG, value=context.running_task(), buffers=[data]))

    def _covers(self, name: str) -> bool:
        if self._names is None:
            return True
        covered = self._covered.get(name)
        if covered is None:
            covered = any(name == one or name.startswith(f"{one}.") for one in self._names)
            self._covered[name] = covered
        return covered

    def _call_own(self, logger: Logger, record: LogRecord) -> bool:
        """Call the worker's own handlers, as `Logger.callHandlers` does; return whether there is any."""
        found, at, nothing = False, logger, self._logging.NullHandler
        while at:
            for handler in at.handlers:
                if id(handler) not in self._inherited and type(handler) is not nothing:
                    found = True
                    if record.levelno >= handler.level:
                        handler.handle(record)
            at = at.parent if at.propagate else None  # type: ignore[assignment]
        return found

    def _dump(self, logger: Logger, record: LogRecord) -> bytes:
        place = _place(record) | {"logger": _name_in_host(logger.name)}
        try:
            return log_records.dumps(place | self._contents(record))
        except Exception as error:
            return log_records.dumps(place | _without_contents(record, error))

    def _contents(self, record: LogRecord) -> dict[str, Any]:
        """Return what is sent of a record. As `QueueHandler.prepare`, it merges the arguments into the message.

        A dictionary as the message (structlog's) stays one: it is for a formatter of the host's.
        """
        known = record.__dict__
        message: Any = record.msg if type(record.msg) is dict and not record.args else str(record.getMessage())
        text = record.exc_text
        if record.exc_info and not text:
            text = self._logging._defaultFormatter.formatException(record.exc_info)
        extra = {name: value for name, value in known.items() if name not in _KNOWN}
        return {"msg": message, "exc_text": text or None, "extra": extra}

    # ---- warnings ------------------------------------------------------------------------------------------

    def take_over_warnings(self) -> None:
        """Get the warnings that this worker would show, and those of kinds that Python ignores unless it is told.

        The host's filters decide. What this worker's filters ignore or raise for another reason is not sent.
        """
        if self._least > WARNING or not self._covers(_OF_WARNINGS):
            return
        ignored = [("ignore", None, kind, None, 0) for kind in _IGNORED]
        if warnings.filters[-len(ignored) :] == ignored:
            del warnings.filters[-len(ignored) :]  # type: ignore[attr-defined]
            warnings.simplefilter("default", append=True)
        self._show_warning = warnings.showwarning
        warnings.showwarning = self._take_warning

    def _take_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        post = self._post
        if post is None or file is not None:
            self._show_warning(message, category, filename, lineno, file, line)
            return
        kinds = [[kind.__module__, kind.__qualname__] for kind in type.mro(category) if issubclass(kind, Warning)]
        fields = {
            "text": describe.text_of(message), "category": kinds, "filename": str(filename), "lineno": int(lineno),
            "module": _module_at(filename, lineno), "line": line, "created": time.time(), "process": os.getpid(),
        }  # fmt: skip
        data = log_records.dumps(fields)
        post(framing.encode(framing.LOG, value=context.running_task(), buffers=[data]))


_IGNORED = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)


def _module_at(filename: str, lineno: int) -> str | None:
    """Return the name of the module that is at this line now, as the filters of `warnings` see it; None: none is."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename == filename and frame.f_lineno == lineno:
            name = frame.f_globals.get("__name__")
            return name if type(name) is str else None
        frame = frame.f_back
    return None


def _place(record: LogRecord) -> dict[str, Any]:
    """Return what is sent of a record beside its contents.

    `logging.makeLogRecord` makes records that lack a name, and a program may set or delete what it likes. What no
    record of the host's could have is what comes nearest to it.
    """
    of = partial(getattr, record)
    lineno, created, thread = of("lineno", 0), of("created", None), of("thread", None)
    return {
        "name": _name_in_host(_text(of("name", None)) or "None"), "levelno": int(record.levelno),
        "levelname": _text(of("levelname", None)) or "", "stack_info": _text(of("stack_info", None)),
        "pathname": _text(of("pathname", None)) or "", "lineno": lineno if isinstance(lineno, int) else 0,
        "funcName": _text(of("funcName", None)), "process": os.getpid(),
        "created": created if _is_time(created) else time.time(), "thread": thread if type(thread) is int else None,
        "threadName": _text(of("threadName", None)), "taskName": of("taskName", None),
    }  # fmt: skip


def _text(value: object) -> str | None:
    return value if value is None or type(value) is str else describe.text_of(value)


def _is_time(value: object) -> bool:
    """Return whether the value can be the time of a record: it is a number, and not infinite."""
    return type(value) in (float, int) and abs(value) < _END_OF_TIME  # type: ignore[arg-type]


def _without_contents(record: LogRecord, error: Exception) -> dict[str, Any]:
    """Return what takes the place of the contents of a record that cannot be sent: it says so."""
    problem = describe.error_text(error)
    message = f"a record of this worker cannot be formatted ({problem}): {describe.repr_of(record.msg)}"
    return {"msg": message, "exc_text": None, "extra": {}}


def _name_in_host(name: str) -> str:
    """Return the name that a logger has in the host: a script that was run again is `__mp_main__` here."""
    first, dot, rest = describe.plain(name).partition(".")
    return ("__main__" if first == "__mp_main__" else first) + dot + rest
