"""The checks of the arguments of executors, and the signatures of functions that take options.

The checks are called by the user's thread that makes, starts or resizes an executor.
"""

from __future__ import annotations

import operator
from itertools import chain
from types import FunctionType
from typing import TYPE_CHECKING, Any

from pidfdpool import checks
from pidfdpool.scheduler.policy import MOST_WORKERS

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_ITEMS = 1 << 31  # that a frame can count
_START_METHODS = {"fork": "fork", "spawn": "exec", "forkserver": "exec"}


def checked_max_workers(value: Any) -> int:
    """Return the number of workers. For None it is the number of CPUs that this process may use (see `process.cpus`).

    Raises:
        ValueError, TypeError: it is not an integer, less than 1, or more than 65535.
    """
    if value is None:
        from pidfdpool.process import cpus  # who names a number does not wait for it

        return min(cpus.usable(), MOST_WORKERS)
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"max_workers must be an integer, not {checks.short_repr(value)}") from None
    if number <= 0:
        raise ValueError(f"max_workers must be greater than 0, not {checks.short_repr(number)}")
    if number > MOST_WORKERS:
        raise ValueError(f"max_workers must be at most {MOST_WORKERS}, not {checks.short_repr(number)}")
    return number


def checked_prestart(workers: Any, max_workers: int, wait: Any, timeout: Any) -> tuple[int, float | None]:
    """Return the number of workers that are to be ready, max_workers for None, and the seconds to wait for them.

    Raises:
        ValueError, TypeError: one of the arguments of `prestart` makes no sense.
    """
    count = checks.integer("workers", workers, least=1, optional=True)
    checks.not_above("workers", count, "max_workers", max_workers)
    checks.boolean("wait", wait)
    return max_workers if count is None else count, checks.seconds("timeout", timeout, optional=True)


def checked_stream(function: Any, buffersize: Any) -> int:
    """Return the number of items that a stream's generator may be ahead.

    Raises:
        ValueError, TypeError: one of the arguments of `stream` makes no sense.
    """
    if not callable(function):
        raise TypeError(f"stream takes a callable, not {checks.short_repr(function)}")
    room: int = checks.integer("buffersize", buffersize, least=1, most=_MOST_ITEMS)
    return room


def checked_start(context: Any, initializer: Any, initargs: Any, preload: Any) -> dict[str, Any]:
    """Return what a template needs to start, as `template.recipe.Recipe` takes it.

    Raises:
        ValueError, TypeError: one of these arguments of the constructor makes no sense.
    """
    way = checked_start_method(context)
    at_start = checked_initializer(initializer, initargs)
    modules, call = checked_preload(preload)
    return {"way": way, "preload": modules, "preload_call": call, "initializer": at_start}


def load_for_fork(start: dict[str, Any]) -> None:
    """Load what a fork of the host needs now: at the first submit no file may be readable any more.

    start: what `checked_start` has returned.
    """
    if start["way"] == "fork":
        import pidfdpool.template.preimports

        if start["preload"] or start["preload_call"] is not None:
            import pidfdpool.template.guard
        if start["initializer"] is not None:
            import pidfdpool.template.late_imports  # noqa: F401


def checked_start_method(context: Any) -> str:
    """Return how the template is started: "exec", "fork", or "any" for no preference.

    Raises:
        TypeError, ValueError: it is neither a multiprocessing context nor the name of a start method.
    """
    if context is None:
        return "any"
    method = context
    if not isinstance(context, str):
        ask = getattr(context, "get_start_method", None)
        if not callable(ask):
            wanted = "a multiprocessing context or the name of one"
            raise TypeError(f"mp_context must be {wanted}, not {checks.short_repr(context)}")
        # allow_none: without it, asking would fix the host's default start method.
        method = ask(allow_none=True)
        if method is None:
            from multiprocessing import get_all_start_methods

            method = get_all_start_methods()[0]
    if method not in _START_METHODS:
        raise ValueError(
            f"mp_context must be one of {', '.join(map(repr, _START_METHODS))}, not {checks.short_repr(method)}"
        )
    return _START_METHODS[method]


def checked_preload(value: Any) -> tuple[tuple[str, ...], Callable[[], object] | None]:
    """Return the names of modules and the callable.

    Raises:
        TypeError, ValueError: something is neither, or there is more than one callable.
    """
    items = (
        (value,)
        if isinstance(value, str) or callable(value)
        else _as_tuple("preload", value, "the name of a module, a callable, or an iterable of these")
    )
    # As plain text: the template, which reads them before it has any module of the user's, knows no other kind.
    modules = tuple(str.__str__(item) for item in items if isinstance(item, str))
    calls = [item for item in items if callable(item)]
    for item in items:
        if not isinstance(item, str) and not callable(item):
            raise TypeError(f"preload takes names of modules and a callable, not {checks.short_repr(item)}")
        if isinstance(item, str) and not all(item.split(".")):
            raise ValueError(f"preload takes names of modules, such as 'numpy', and {item!r} is none")
    if len(calls) > 1:
        raise ValueError(f"preload takes at most one callable, not {checks.short_repr(calls)}")
    return modules, calls[0] if calls else None


def checked_initializer(call: Any, arguments: Any) -> tuple[Callable[..., object], tuple[Any, ...]] | None:
    """Return the initializer with its arguments. None: there is none.

    Raises:
        TypeError: it is not callable, or its arguments are not iterable.
    """
    if call is not None and not callable(call):
        raise TypeError(f"initializer must be a callable, not {checks.short_repr(call)}")
    if call is None and arguments is None:
        return None
    given = _as_tuple("initargs", arguments, "an iterable of arguments")
    return None if call is None else (call, given)


def is_same(one: object, other: object) -> bool:
    """Return whether two values of an option are equal. What cannot be compared is not: an array, say."""
    try:
        return one is other or bool(one == other)
    except Exception:  # by the code of the values, such as a metaclass of a class in retry_on
        return False


def _as_tuple(name: str, value: Any, wanted: str) -> tuple[Any, ...]:
    try:
        items = iter(value)
    except TypeError:
        raise TypeError(f"{name} must be {wanted}, not {checks.short_repr(value)}") from None
    return tuple(chain(items))  # list() and tuple() of an iterable ask for its length, which may be wrong


def list_options(function: Any, options: type[Any], defaults: type[Any] | None = None) -> None:
    """Have `inspect.signature` and `help` list the options of a function one by one, instead of `**options`.

    Args:
        function: takes the options as keywords.
        options: the TypedDict with their names and types.
        defaults: the class whose constructor has their defaults. None: an option that is not given stays unchanged.
    """
    function.__signature__ = _LazySignature(function, options, defaults)


class _LazySignature:
    """Behaves as an `inspect.Signature` that is computed at its first use, because loading `inspect` is slow.

    `inspect` requires that the attribute `__signature__` is an instance of Signature. It asks isinstance(), which
    looks at the attribute `__class__`.
    """

    def __init__(self, *made_of: Any) -> None:
        self._made_of = made_of

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._signature())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._signature(), name)

    def __repr__(self) -> str:
        return repr(self._signature())

    def __str__(self) -> str:
        return str(self._signature())

    def __eq__(self, other: object) -> bool:
        return bool(self._signature() == other)

    def __hash__(self) -> int:
        return hash(self._signature())

    def _signature(self) -> Any:
        import inspect
        from typing import get_type_hints

        function, options, defaults = self._made_of
        made: Any = function.__signature__
        if made is not self:  # it was computed before
            return made
        # A copy, because at the function itself `inspect` would find this object.
        plain = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
        plain.__kwdefaults__, plain.__annotations__ = function.__kwdefaults__, function.__annotations__
        signature = inspect.signature(plain, eval_str=True)
        known = {} if defaults is None else inspect.signature(defaults).parameters
        parameters = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        parameters += [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=kind,
                default=known[name].default if known else UNCHANGED,
            )
            for name, kind in get_type_hints(options).items()
        ]
        function.__signature__ = signature.replace(parameters=parameters)
        return function.__signature__


class _Unchanged:
    """Stands for the default of an option that stays as it is."""

    def __repr__(self) -> str:
        return "<unchanged>"


UNCHANGED = _Unchanged()
