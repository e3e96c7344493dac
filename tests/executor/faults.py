"""Faults to be committed by the code of a call, of its arguments, of its result, and of what is called back."""

from __future__ import annotations

import os
import signal
import threading
import time

STARTED = threading.Event()  # a fault hangs in the host
RELEASE = threading.Event()  # it need not any longer


class Mute(Exception):
    """An exception with nothing to say."""

    def __str__(self):
        raise RuntimeError("it has no text")

    __repr__ = __str__


def commit(fault, host):
    """Commit the fault. host: the process of the one who commits it, if that is the host."""
    if fault == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "exit":
        raise SystemExit(7)
    if fault == "raise":
        raise ValueError("a fault")
    if fault == "hang" and host == os.getpid():
        STARTED.set()
        assert RELEASE.wait(60)
    elif fault == "hang":
        time.sleep(600)
    if fault == "MemoryError":
        raise MemoryError
    if fault == "broken __str__":
        raise Mute
    return 0


class Pickled:
    """Commits a fault when it is pickled."""

    def __init__(self, fault, host):
        self._fault = fault
        self._host = host

    def __reduce__(self):
        return int, (commit(self._fault, self._host),)


class Unpickled:
    """Commits a fault when it is unpickled."""

    def __init__(self, fault, host):
        self._fault = fault
        self._host = host

    def __reduce__(self):
        return commit, (self._fault, self._host)


def call(argument):
    """Return the argument, unless it asks for something else."""
    if type(argument) is not tuple:
        return argument
    place, fault, host = argument
    if place == "running":
        return commit(fault, host)
    return {"pickling the result": Pickled, "unpickling the result": Unpickled}[place](fault, host)


def argument(place, fault):
    """Return the argument with which `call` commits the fault in this place."""
    if place == "pickling the call":
        return Pickled(fault, os.getpid())
    if place == "unpickling the call":
        return Unpickled(fault, os.getpid())
    return place, fault, os.getpid()
