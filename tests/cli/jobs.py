"""Functions that tests have `map` apply. The command finds this module in its current directory."""

from __future__ import annotations

import os
import signal
import sys
import time


def same(document):
    return document


def increment(document):
    return {"n": document["n"] + 1}


def fail_on_three(document):
    if document == 3:
        raise ValueError("three is not allowed")
    return document


def exit_on_three(document):
    if document == 3:
        sys.exit("three is the end")
    return document


def die_on_three(document):
    if document == 3:
        signal.raise_signal(signal.SIGKILL)
    return document


def die_always(document):
    os._exit(9)


def die_on_first_try(document):
    """Die at most once per marker file, whose path is the document's."""
    path = document.get("die_once")
    if path is not None:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return document
        signal.raise_signal(signal.SIGKILL)
    return document


def wait_for(document):
    """Return the document once the file that it names is there."""
    while document.get("wait_for") and not os.path.exists(document["wait_for"]):
        time.sleep(0.005)
    return document


def hang(document):
    """Say so, and never return."""
    os.write(1, b"hanging\n")  # at once, because another worker may say so at the same time
    while True:
        time.sleep(60)


def chatter(document):
    print("printed by the function")
    os.write(1, b"written by the function\n")
    return document


def not_json(document):
    return {1, 2}


def infinite(document):
    return float("inf")


def length(text):
    return [type(text).__name__, len(text)]


class Box:
    """A place for a function with a dotted path."""

    @staticmethod
    def wrap(document):
        return [document]


constant = 7
