"""Context variables of a module that workers import, and tasks that look at them."""

from __future__ import annotations

import contextvars

REQUEST = contextvars.ContextVar("a request", default="none")
USER = contextvars.ContextVar("USER", default="nobody")


class Holder:
    INNER = contextvars.ContextVar("INNER", default="none")


def see(*_):
    return REQUEST.get(), USER.get(), Holder.INNER.get()


def change(value, *_):
    before = REQUEST.get()
    REQUEST.set(value)
    return before


def fail():
    raise ValueError(REQUEST.get())
