"""The placeholder of a global that did not travel: each use raises the message, and having it is harmless."""

from __future__ import annotations

import builtins
import copy
import math
import operator
import os
import pickle
import traceback

import pytest

from pidfdpool import GlobalNotAvailable
from pidfdpool.serialization.placeholder import Placeholder


@pytest.fixture
def gone():
    return Placeholder("the global 'x' could not travel", ValueError("because"))


async def _await(value):
    await value


async def _enter(value):
    async with value:
        pass


async def _iterate(value):
    async for _ in value:
        pass


def _run(coroutine):
    try:
        coroutine.send(None)
    finally:
        coroutine.close()


def _with(value):
    with value:
        pass


def _subclass(value):
    class Below(value):
        pass


def _unpack(value):
    _, _ = value


def _match(value):
    match value:
        case 1:
            pass


USES = {
    "attribute": lambda x: x.anything,
    "set attribute": lambda x: setattr(x, "a", 1),
    "delete attribute": lambda x: delattr(x, "a"),
    "hasattr": lambda x: hasattr(x, "a"),
    "dict": lambda x: vars(x),
    "call": lambda x: x(),
    "call with arguments": lambda x: x(1, a=2),
    "item": lambda x: x[0],
    "set item": lambda x: operator.setitem(x, 0, 1),
    "delete item": lambda x: operator.delitem(x, 0),
    "in": lambda x: 1 in x,
    "iterate": lambda x: list(x),
    "next": next,
    "unpack": _unpack,
    "star": lambda x: [*x],
    "two stars": lambda x: dict(**x),
    "reversed": reversed,
    "len": len,
    "bool": bool,
    "not": operator.not_,
    "if": lambda x: 1 if x else 2,
    "with": _with,
    "async with": lambda x: _run(_enter(x)),
    "async for": lambda x: _run(_iterate(x)),
    "await": lambda x: _run(_await(x)),
    "match": _match,
    "hash": hash,
    "key of a dictionary": lambda x: {x: 1},
    "format": lambda x: f"{x}",
    "format with a specification": lambda x: f"{x:>10}",
    "pickle": pickle.dumps,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "isinstance": lambda x: isinstance(1, x),
    "issubclass": lambda x: issubclass(int, x),
    "subclass": _subclass,
    "fspath": os.fspath,
    "open": open,
    "memoryview": bytes,
    "index": lambda x: [1, 2][x],
    "slice": lambda x: [1, 2][x:],
    "divmod": lambda x: divmod(x, 1),
    "pow": lambda x: pow(x, 2, 3),
    "sum": lambda x: sum([1, x]),
    "sorted": lambda x: sorted([x, 1]),
    "join": lambda x: "".join(x),
}
USES |= {name: getattr(builtins, name) for name in ("str", "bytes", "int", "float", "complex", "abs", "round")}
USES |= {f"math.{name}": getattr(math, name) for name in ("floor", "ceil", "trunc")}
USES |= {name: getattr(operator, name) for name in ("neg", "pos", "invert", "index", "length_hint")}
_TWO = [
    "add",
    "sub",
    "mul",
    "matmul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "lshift",
    "rshift",
    "and_",
    "or_",
    "xor",
    "lt",
    "le",
    "gt",
    "ge",
    "eq",
    "ne",
]
USES |= {name: lambda x, name=name: getattr(operator, name)(x, 1) for name in _TWO}
_IN_PLACE = [
    "iadd",
    "isub",
    "imul",
    "imatmul",
    "itruediv",
    "ifloordiv",
    "imod",
    "ipow",
    "ilshift",
    "irshift",
    "iand",
    "ior",
    "ixor",
]
USES |= {name: lambda x, name=name: getattr(operator, name)(x, 1) for name in _IN_PLACE}
USES |= {f"{name} from the right": lambda x, name=name: getattr(operator, name)(1, x) for name in _TWO}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_each_use_raises_the_message(gone, use):
    with pytest.raises(GlobalNotAvailable, match="the global 'x' could not travel") as caught:
        use(gone)
    assert isinstance(caught.value.__cause__, ValueError)
    assert isinstance(caught.value, NameError)


def test_passing_it_on_does_not_raise(gone):
    other = Placeholder("another")
    held = {"a": gone, "b": [gone]}
    assert held["a"] is gone
    assert gone is not other
    assert (lambda x: x)(gone) is gone
    assert id(gone) == id(held["b"][0])
    assert type(gone) is Placeholder
    assert isinstance(gone, Placeholder)
    assert [gone].count(gone) == 1, "the same object is found without being asked"


def test_it_has_a_repr(gone):
    """Debuggers, tracebacks with locals, and logs show it."""
    assert repr(gone) == "<not available here: the global 'x' could not travel>"
    assert repr([gone]) == f"[{gone!r}]"
    assert f"{gone!r}" == repr(gone)
    try:
        raise ValueError("no")
    except ValueError as error:
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    assert "not available here" in "".join(shown.format())


def test_without_a_cause():
    with pytest.raises(GlobalNotAvailable) as caught:
        Placeholder("why")()
    assert caught.value.__cause__ is None
