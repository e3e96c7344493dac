"""Exceptions and results whose own code gets in the way of whoever looks at them. For workers and the host."""

from __future__ import annotations

import builtins
import os

import pidfdpool


class Refusal(Exception):
    """Raised by code that somebody else has called. Has no text."""

    def __str__(self):
        raise RuntimeError("it has no text")

    __repr__ = __str__


def refuse(*_: object, **__: object):
    raise Refusal


class NoText(str):
    """A string that is of no use but for its characters."""

    __slots__ = ()
    __str__ = __repr__ = __format__ = encode = refuse


class Untold(Exception):
    """Has a text that is none."""

    def __str__(self):
        return NoText("the text")


class Unnamed(type):
    __name__ = property(refuse)


class OfUnnamed(Exception, metaclass=Unnamed):
    """Its class does not say how it is called."""


class Untraced(Exception):
    __traceback__ = property(refuse, refuse)


class Unrelated(Exception):
    __cause__ = __context__ = __notes__ = property(refuse, refuse)


class Classless(Exception):
    __class__ = property(refuse)


class NeitherTrueNorFalse(Exception):
    __bool__ = __len__ = refuse


class Falsy(Exception):
    def __bool__(self):
        return False


class Incomparable(Exception):
    __eq__ = __hash__ = refuse


class Pretender:
    """No exception, though it says so."""

    __class__ = property(lambda _self: ValueError)


class BecomesPretender(Exception):
    def __reduce__(self):
        return Pretender, ()


class FoundGuilty(type):
    """A class which refuses to say what belongs to it."""

    __instancecheck__ = __subclasscheck__ = refuse


class Judge(Exception, metaclass=FoundGuilty):
    """To be named in retry_on."""


def raise_now(kind: str):
    raise (globals().get(kind) or getattr(builtins, kind))("its own text")


class Rebuilt:
    """A result, or an exception's part, whose rebuilding raises an exception of this kind."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __reduce__(self):
        return raise_now, (self.kind,)


class HoldsRebuilt(Exception):
    """An exception whose rebuilding raises one of another kind."""

    def __reduce__(self):
        return raise_now, (self.args[0],)


def give(kind: str):
    return Rebuilt(kind)


def raise_holding(kind: str):
    raise HoldsRebuilt(kind)


class Nameless:
    """Something to be called, whose attributes are of no use."""

    def __call__(self, value):
        return value

    def __getattr__(self, name):
        if name.startswith("__") and name != "__qualname__":  # pickle's own questions
            raise AttributeError(name)
        raise Refusal


def misnamed(value):
    """Is called by names that are of no use."""
    if value == "die":
        os._exit(1)
    return value


misnamed.func = Nameless()


def be_unwell():
    pidfdpool.unhealthy(NoText("tired"))
    return "done"


class Initialized:
    """To be called as an initializer or a preload."""

    def __call__(self):
        raise Refusal
