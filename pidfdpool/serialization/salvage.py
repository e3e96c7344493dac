"""Rebuilds a list of which some items fail to unpickle: the other items are in their places.

Calls and results of `map` travel together in one pickle, and the interpreter's unpickler stops at the first object
that fails. This one goes on: everything that depends on the failed object becomes a `FailedItem`, up to the item of
the list that contains it. All other items are rebuilt as if nothing had failed.

It is slow, and used only after the fast way has failed: in the host for results, in a worker for calls, on the thread
that unpickles. Runs the objects' own code.
"""

from __future__ import annotations

import gc
import io
import pickle
from functools import partial
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from pidfdpool.serialization import payload, scripts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pidfdpool.transport.framing import Buffer


_HELD_BY_ALL = type, ModuleType, FunctionType, BuiltinFunctionType  # to look into these would lead to everything


class FailedItem:
    """Takes the place of what could not be rebuilt. Raises the reason if a call uses it as its arguments."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __iter__(self) -> Iterator[Any]:
        raise self.error


def load_items(buffers: Sequence[Buffer], *, in_host: bool) -> list[Any] | None:
    """Return the list that a payload holds, with a `FailedItem` for each item that fails; None: nothing can be saved.

    in_host: existing classes stay as they are, see `payload.load_result`.

    Raises:
        NeedsScript: the script has to be run again for it.
        BaseException: as `payload.loads`, if something other than an item fails.
    """
    data, out_of_band = buffers[0], buffers[1:]
    loads = partial(_loads, in_host=in_host)
    if data[-1] <= payload.HIGHEST_MARK:
        from pidfdpool.serialization import namespaces

        made = namespaces.load(data, out_of_band, loads)
    else:
        made = loads(data, buffers=out_of_band)
    return made if type(made) is list else None


def _loads(data: Buffer, buffers: Iterable[Any] = (), *, in_host: bool) -> Any:
    return _Unpickler(io.BytesIO(data), buffers, in_host=in_host).load()


def _load_reference_or_value(by_name: bytes, by_value: bytes, *, in_host: bool) -> Any:
    """Do the same as `payload.load_reference_or_value`, item by item."""
    made = _loads(by_name, in_host=in_host)
    if type(made) is FailedItem:
        return _loads(by_value, in_host=in_host)
    if type(made) is not list or not any(type(item) is FailedItem for item in made):
        return made
    other = _loads(by_value, in_host=in_host)
    return [item if type(item) is not FailedItem else instead for item, instead in zip(made, other, strict=True)]


class _Unpickler(pickle._Unpickler):
    """The standard library's unpickler in Python, in which a step that fails leaves a `FailedItem` on the stack."""

    stack: list[Any]
    metastack: list[list[Any]]
    memo: dict[int, Any]
    append: Callable[[Any], None]

    def __init__(self, stream: io.BytesIO, buffers: Iterable[Any], *, in_host: bool) -> None:
        super().__init__(stream, buffers=buffers)
        self._in_host = in_host
        self._guard = payload.ClassGuard()
        self.taken: set[int] = set()  # ids of what was taken from the memo, which keeps it alive
        self.pair: Any = None  # a tuple of two that was made last and is not in the memo

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if found is payload.load_reference_or_value:
            return partial(_load_reference_or_value, in_host=self._in_host)
        return self._guard.replacement(module, name, found) if self._in_host else found

    def fail(self, base: int, failed: FailedItem, target: Any) -> None:
        """Make `failed` the result of a step. base: the result's stack position. target: what it would change."""
        del self.stack[base:]
        self.append(failed)
        if target is not None:
            # What was taken from the memo before it was complete may be held by objects that seem to be complete.
            lost = self._holders_of(target) if id(target) in self.taken else {id(target)}
            for number, value in self.memo.items():
                if id(value) in lost:
                    self.memo[number] = failed

    def _holders_of(self, target: Any) -> set[int]:
        """Return the ids of an object and of all that holds it, directly or through others."""
        bottom = self.metastack[0] if self.metastack else self.stack
        whole = bottom[0] if bottom else None  # the list of all items is lost with none
        holders: dict[int, list[int]] = {}
        seen: set[int] = {id(whole)}
        waiting = list(self.memo.values())
        while waiting:
            each = waiting.pop()
            if id(each) not in seen and not isinstance(each, _HELD_BY_ALL):
                seen.add(id(each))
                for part in gc.get_referents(each):
                    holders.setdefault(id(part), []).append(id(each))
                    waiting.append(part)
        found: set[int] = set()
        left = [id(target)]
        while left:
            number = left.pop()
            if number not in found:
                found.add(number)
                left += holders.get(number, ())
        return found


def _guarded(load: Callable[[Any], None], count: int, *, changes: bool) -> Callable[[Any], None]:
    """Guard an opcode's method that takes a fixed number of objects. changes: it changes the first of them."""

    def step(self: Any) -> None:
        stack = self.stack
        base = len(stack) - count
        operands = stack[base:]
        is_whole = changes and base == 0 and not self.metastack and type(stack[0]) is list
        failed = None if is_whole else _first_failed(operands)
        if failed is None:
            try:
                load(self)
                return
            except scripts.NeedsScript:
                raise
            except BaseException as error:
                failed = FailedItem(error)
        self.fail(base, failed, operands[0] if changes else None)

    return step


def _guarded_since_mark(load: Callable[[Any], None], *, changes: bool) -> Callable[[Any], None]:
    """Guard an opcode's method that takes all objects since a mark. changes: it changes the object below the mark."""

    def step(self: Any) -> None:
        items, below = self.stack, self.metastack[-1]
        is_whole = changes and len(self.metastack) == 1 and len(below) == 1 and type(below[0]) is list
        target = below[-1] if changes else None
        failed = None if is_whole else _first_failed([target, *items])
        if failed is None:
            try:
                load(self)
                return
            except BaseException as error:
                failed = FailedItem(error)
        if self.stack is not below:
            self.pop_mark()
        self.fail(len(below) - 1 if changes else len(below), failed, target)

    return step


def _guarded_pair(load: Callable[[Any], None]) -> Callable[[Any], None]:
    """Guard the opcode that makes a tuple of two, and note the tuple until it is in the memo."""
    guarded = _guarded(load, 2, changes=False)

    def step(self: Any) -> None:
        guarded(self)
        self.pair = self.stack[-1]

    return step


def _guarded_call(load: Callable[[Any], None]) -> Callable[[Any], None]:
    """Guard the opcode that calls a function. If the function was to set an object's state, that has failed as well.

    Such an object lies below, and is the first of two arguments, which alone of all arguments never are in the memo.
    """
    guarded = _guarded(load, 2, changes=False)

    def step(self: Any) -> None:
        sets_state = self.stack[-1] is self.pair
        guarded(self)
        failed = self.stack[-1]
        if sets_state and type(failed) is FailedItem:
            self.fail(len(self.stack) - 2, failed, self.stack[-2])
            self.append(failed)  # in the place of the function's result, which is dropped next

    return step


def _noting_what_is_taken(load: Callable[[Any], None]) -> Callable[[Any], None]:
    """Note what an opcode takes from the memo."""

    def step(self: Any) -> None:
        load(self)
        self.taken.add(id(self.stack[-1]))

    return step


def _memoize(self: Any) -> None:
    pickle._Unpickler.load_memoize(self)  # type: ignore[attr-defined]
    self.pair = None


def _first_failed(operands: Iterable[Any]) -> FailedItem | None:
    return next((operand for operand in operands if type(operand) is FailedItem), None)


_OPERANDS = {
    pickle.NEWOBJ: 2, pickle.NEWOBJ_EX: 3, pickle.STACK_GLOBAL: 2, pickle.TUPLE1: 1, pickle.TUPLE3: 3,
    pickle.READONLY_BUFFER: 1,
    pickle.EXT1: 0, pickle.EXT2: 0, pickle.EXT4: 0,
}  # fmt: skip
_CHANGING_OPERANDS = {pickle.BUILD: 2, pickle.APPEND: 2, pickle.SETITEM: 3}
_dispatch: dict[int, Any] = dict(pickle._Unpickler.dispatch)
for _codes, _in_place in ((_OPERANDS, False), (_CHANGING_OPERANDS, True)):
    for _code, _count in _codes.items():
        _dispatch[_code[0]] = _guarded(_dispatch[_code[0]], _count, changes=_in_place)
for _code in (pickle.APPENDS, pickle.SETITEMS, pickle.ADDITEMS):
    _dispatch[_code[0]] = _guarded_since_mark(_dispatch[_code[0]], changes=True)
for _code in (pickle.TUPLE, pickle.FROZENSET):
    _dispatch[_code[0]] = _guarded_since_mark(_dispatch[_code[0]], changes=False)
_dispatch[pickle.TUPLE2[0]] = _guarded_pair(_dispatch[pickle.TUPLE2[0]])
_dispatch[pickle.REDUCE[0]] = _guarded_call(_dispatch[pickle.REDUCE[0]])
_dispatch[pickle.MEMOIZE[0]] = _memoize
for _code in (pickle.BINGET, pickle.LONG_BINGET):
    _dispatch[_code[0]] = _noting_what_is_taken(_dispatch[_code[0]])
_Unpickler.dispatch = _dispatch
