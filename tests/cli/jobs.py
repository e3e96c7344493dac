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


def count_up(document):
    yield from range(document)


def an_iterator(document):
    return map(int, str(list(range(document)))[1:-1].split(","))


def a_list(document):
    return list(range(document))


def nothing(document):
    return iter(())


def null(document):
    return None


def nulls(document):
    yield from (None, 1, None)


def reuses(document):
    """Yield the same object again and again, as generators do that save memory."""
    made = [0]
    yield made
    made[0] = 1
    yield made


def fails_later(document):
    yield document
    raise ValueError("later")


def yields_a_set(document):
    yield 1
    yield {1}


def note(path):
    """Add a byte to a file; return how many it has now."""
    with open(path, "ab") as file:
        file.write(b".")
    return os.stat(path).st_size


def fail_at_first(document):
    """Fail for as often as the document says, then give how often it was called."""
    calls = note(document["path"])
    if calls <= document["fails"]:
        raise ValueError(f"attempt {calls}")
    return calls


def count_and_hang(document):
    """Sleep for as long as the document says, if it is one that says so; note each call."""
    if isinstance(document, dict):
        note(document["path"])
        time.sleep(document["sleep"])
    return document


def take_memory(document):
    """Take as many megabytes as the document says, for a second."""
    if document:
        taken = bytearray(document << 20)
        taken[::4096] = b"1" * len(taken[::4096])
        time.sleep(1)
        return len(taken) >> 20
    return document


kept = []


def leak(document):
    """Keep a megabyte with each call, which is noted; return how many this process has kept."""
    note(document["path"])
    kept.append(b"1" * (1 << 20))
    time.sleep(0.02)
    return len(kept)


class Box:
    """A place for a function with a dotted path."""

    @staticmethod
    def wrap(document):
        return [document]


constant = 7
