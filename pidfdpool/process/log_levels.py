"""The levels of this process's loggers as plain data, so that another process can have the same.

The host takes them (`loop.log_relay`), and a worker applies them (`worker.log_forwarding`), so that what nobody wants
is not even made a record of there. `logging` has no way to be told of changes. But each logger remembers in a private
dictionary which levels are enabled, and every change of a level empties that dictionary of all loggers. So a name of
ours in the root logger's dictionary tells, in one look-up, that nothing has changed. That a logger is enabled again
empties nothing, so those that were disabled are looked at every millisecond: a program may have hundreds of them. One
that is disabled meanwhile only costs messages, which the host drops. Thread-safe, as dictionaries are.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from operator import attrgetter
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    # The level at and below which nothing is logged (`logging.disable`); and level and `disabled` of each logger that
    # has a level of its own or is disabled. The root logger's name is "".
    Levels: TypeAlias = tuple[int, dict[str, tuple[int, bool]]]

_UNCHANGED: Any = "pidfdpool: no level was changed"
_version = 0
_is_disabled = attrgetter("disabled")
_disabled: list[logging.Logger] = []  # those that `current` has found last
_LOOK = 0.001  # seconds
_look_at = 0.0


def version() -> int:
    """Return a number that is another one after any change of a level. Costs one look-up, mostly."""
    global _version  # noqa: PLW0603  one for each process, as the levels
    known = getattr(logging.root, "_cache", None)
    if known is None:  # another implementation: changes are not noticed
        return _version
    if _UNCHANGED not in known or (_disabled and _is_one_enabled()):
        known[_UNCHANGED] = True  # first, so that a change from here on is noticed
        _version += 1
    return _version


def _is_one_enabled() -> bool:
    """Return whether one of the loggers that were disabled is enabled now, if it is time to look."""
    global _look_at  # noqa: PLW0603  as above
    now = monotonic()
    if now < _look_at:
        return False
    _look_at = now + _LOOK
    return not all(map(_is_disabled, _disabled))


def current() -> Levels:
    """Return the levels that loggers have now. Takes some microseconds for each hundred loggers."""
    global _disabled  # noqa: PLW0603  as above
    manager = logging.root.manager
    levels = {"": (int(logging.root.level), bool(logging.root.disabled))}
    disabled: list[logging.Logger] = [logging.root] if logging.root.disabled else []
    for name, logger in list(manager.loggerDict.items()):
        with suppress(Exception):  # a program's own class of loggers
            if isinstance(logger, logging.Logger) and (logger.level or logger.disabled):
                levels[str(name)] = int(logger.level), bool(logger.disabled)
                if logger.disabled:
                    disabled.append(logger)
    _disabled = disabled
    return int(manager.disable), levels


def apply(levels: Levels, before: Levels | None) -> None:
    """Give loggers of this process these levels, where they differ from those that were applied before.

    What this process itself has changed meanwhile stays as it is.
    """
    disable, of_loggers = levels
    known = {} if before is None else before[1]
    if before is None or before[0] != disable:
        logging.disable(disable)
    for name in {**known, **of_loggers}:
        wanted = of_loggers.get(name, (logging.NOTSET, False))
        if known.get(name) != wanted:
            logger = logging.getLogger(name) if name else logging.root
            logger.setLevel(wanted[0])
            logger.disabled = wanted[1]


def is_configured() -> bool:
    """Return whether this program has set up logging: some logger has a handler that writes.

    The standard's pools give the logger "concurrent.futures" a handler of its own, which does not count.
    """
    for logger in [logging.root, *list(logging.root.manager.loggerDict.values())]:
        with suppress(Exception):  # as above
            if not isinstance(logger, logging.Logger) or logger.name == "concurrent.futures":
                continue
            if any(type(handler) is not logging.NullHandler for handler in logger.handlers):
                return True
    return False
