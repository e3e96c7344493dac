"""Rebuilds a list of which some items cannot be rebuilt: those that can be are there, in their places.

Calls and results of `map` travel together in one pickle, and the interpreter's unpickler gives up at the first object
that fails. This one goes on: what depends on such an object is `Lost`, up to the item of the list that it is in, and
the other items come out as if that had not been there.

Slow, and only for what has failed before. In host and worker, wherever payloads are rebuilt; runs the objects' code.
"""

from __future__ import annotations

import io
import pickle
from functools import partial
from typing import TYPE_CHECKING, Any

from pidfdpool.serialization import payload, scripts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pidfdpool.transport.framing import Buffer


class FailedItem:
    """Stands for what could not be rebuilt. Raises why, if it is taken for the arguments of a call."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __iter__(self) -> Iterator[Any]:
        raise self.error


def load_items(buffers: Sequence[Buffer], *, in_host: bool) -> list[Any] | None:
    """Return the list that a payload holds, with `Lost` for each item that fails; None: there is nothing to be had.

    in_host: the classes that are there stay as they are, see `payload.load_result`.

    Raises:
        NeedsScript: the script has to be run again for it.
        BaseException: as `payload.loads`, if it is not the items that fail.
    """
    data, out_of_band = buffers[0], map(payload.writable, buffers[1:])
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
    """Do as `payload.load_reference_or_value`, item by item."""
    made = _loads(by_name, in_host=in_host)
    if type(made) is FailedItem:
        return _loads(by_value, in_host=in_host)
    if type(made) is not list or not any(type(item) is FailedItem for item in made):
        return made
    other = _loads(by_value, in_host=in_host)
    return [item if type(item) is not FailedItem else instead for item, instead in zip(made, other, strict=True)]


class _Unpickler(pickle._Unpickler):
    """The standard library's unpickler in Python, but each step that may fail leaves `Lost` behind."""

    stack: list[Any]
    metastack: list[list[Any]]
    memo: dict[int, Any]
    append: Callable[[Any], None]

    def __init__(self, stream: io.BytesIO, buffers: Iterable[Any], *, in_host: bool) -> None:
        super().__init__(stream, buffers=buffers)
        self._in_host = in_host
        self._guard = payload.ClassGuard()

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if found is payload.load_reference_or_value:
            return partial(_load_reference_or_value, in_host=self._in_host)
        return self._guard.replacement(module, name, found) if self._in_host else found

    def fail(self, base: int, failed: FailedItem, target: Any) -> None:
        """Have `lost` be the result of a step. base: where that is to lie; target: what it should have changed."""
        del self.stack[base:]
        self.append(failed)
        if target is not None:
            for number, value in self.memo.items():
                if value is target:
                    self.memo[number] = failed


def _guarded(load: Callable[[Any], None], count: int, *, changes: bool) -> Callable[[Any], None]:
    """Return an opcode's method that takes so many objects. changes: it changes the first of them."""

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
    """Return the like for one that takes all objects since a mark. changes: what lies below that."""

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


def _guarded_pop(load: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return the like for what drops the uppermost object: if that is lost, it was to set the state of the next."""

    def step(self: Any) -> None:
        failed = _first_failed(self.stack[-1:])
        load(self)
        if failed is not None and self.stack:
            self.fail(len(self.stack) - 1, failed, self.stack[-1])

    return step


def _first_failed(operands: Iterable[Any]) -> FailedItem | None:
    return next((operand for operand in operands if type(operand) is FailedItem), None)


_OPERANDS = {
    pickle.REDUCE: 2, pickle.NEWOBJ: 2, pickle.NEWOBJ_EX: 3, pickle.STACK_GLOBAL: 2,
    pickle.TUPLE1: 1, pickle.TUPLE2: 2, pickle.TUPLE3: 3, pickle.READONLY_BUFFER: 1,
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
_dispatch[pickle.POP[0]] = _guarded_pop(_dispatch[pickle.POP[0]])
_Unpickler.dispatch = _dispatch
