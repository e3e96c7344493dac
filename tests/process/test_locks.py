"""Locks: of which kind they are, and that no signal handler leaves one held."""

from __future__ import annotations

import _thread
import ast
import dis
import signal
import sys
import threading
from itertools import pairwise
from pathlib import Path
from types import CodeType

import pytest

import pidfdpool
from pidfdpool.process import interruptible, locks, native

KINDS = (locks.reentrant, locks.plain, native.reentrant_lock, native.lock)
REENTRANT = (locks.reentrant, native.reentrant_lock)


class Raised(BaseException):
    """What the handler raises."""


def enter_again_and_again(lock):
    for _ in range(100_000):
        with lock:
            pass


def is_free(lock):
    """Return whether another thread can have it."""
    had = []

    def take():
        if lock.acquire(blocking=False):
            lock.release()
            had.append(True)

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return bool(had)


@pytest.mark.parametrize("make", [*KINDS, interruptible.Condition, lambda: interruptible.Condition(locks.plain())])
def test_a_handler_that_raises_leaves_no_lock_held(make):
    """Guards: Python 3.14 lets a handler run when a lock is acquired, and the block not yet protected."""

    def handle(*_):
        raise Raised

    raised, before = 0, signal.signal(signal.SIGALRM, handle)
    try:
        for _ in range(300):
            lock = make()
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0003)
                enter_again_and_again(lock)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Raised:
                raised += 1
            assert is_free(lock)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert raised > 200


@pytest.fixture(params=["as here", "as in Python 3.14"])
def python(request, monkeypatch):
    if request.param == "as in Python 3.14":
        monkeypatch.setattr(locks, "_MAY_ENTER_HALF", True)


@pytest.mark.usefixtures("python")
@pytest.mark.parametrize("make", KINDS)
def test_a_lock_is_held_within_its_block(make):
    lock = make()
    assert is_free(lock)
    with lock as entered:
        assert entered is True
        assert not is_free(lock)
    assert is_free(lock)
    with pytest.raises(ValueError, match="of the block"), lock:
        raise ValueError("of the block")
    assert is_free(lock)


@pytest.mark.usefixtures("python")
@pytest.mark.parametrize("make", REENTRANT)
def test_a_reentrant_lock_may_be_entered_again(make):
    lock = make()
    with lock:
        with lock:
            assert lock._is_owned()
        assert not is_free(lock)
    assert not lock._is_owned()


@pytest.mark.usefixtures("python")
@pytest.mark.parametrize("make", [locks.plain, native.lock])
def test_a_plain_lock_is_held_once(make):
    lock = make()
    with lock:
        assert lock.locked()
        assert not lock.acquire(timeout=0)
    assert not lock.locked()
    assert not hasattr(lock, "_is_owned")


@pytest.mark.usefixtures("python")
@pytest.mark.parametrize("make", KINDS)
def test_a_condition_waits_with_each_of_them(make):
    condition, told = interruptible.Condition(make()), []

    def wait():
        with condition:
            told.append("waits")
            condition.notify_all()
            condition.wait_for(lambda: "go on" in told, timeout=30)
            told.append("went on")

    thread = threading.Thread(target=wait)
    thread.start()
    with condition:
        assert condition.wait_for(lambda: told, timeout=30)
        told.append("go on")
        condition.notify_all()
    thread.join(30)
    assert told == ["waits", "go on", "went on"]


@pytest.mark.usefixtures("python")
def test_locks_of_greenlets_are_those_that_the_host_has_put_there(monkeypatch):
    class OfGreenlets:
        pass

    monkeypatch.setattr(threading, "RLock", OfGreenlets)
    monkeypatch.setattr(threading, "Lock", OfGreenlets)
    assert {type(locks.reentrant()), type(locks.plain())} == {OfGreenlets}
    monkeypatch.delitem(sys.modules, "threading")
    assert locks.reentrant()._is_owned() is False
    assert locks.plain().locked() is False


def test_where_no_lock_is_entered_half_they_are_the_standards(monkeypatch):
    monkeypatch.setattr(locks, "_MAY_ENTER_HALF", False)
    assert [type(make()) for make in KINDS] == [type(_thread.RLock()), type(_thread.allocate_lock())] * 2


def blocks_of_locks(tree):
    """Return the lines of each `with` block of a lock, as ranges."""
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.With)]
    return [
        range(block.lineno, block.end_lineno + 1)
        for block in blocks
        if not any("suppress" in ast.unparse(item.context_expr) for item in block.items)
    ]


def codes_in(code):
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes_in(constant)


def unprotected_steps(code):
    """Yield the line of each jump back that no block protects, though one protects what it jumps to."""
    instructions = dis.Bytecode(code)
    entries = [entry for entry in instructions.exception_entries if not entry.lasti or entry.depth]

    def handler(offset):
        return [entry.target for entry in entries if entry.start <= offset < entry.end][-1:]

    in_order = list(instructions)
    with_blocks = {
        before.offset for before, after in pairwise(in_order) if after.opname == "WITH_EXCEPT_START"
    }  # their handlers begin so
    for jump in in_order:
        if jump.opname.startswith("JUMP_BACKWARD") and "NO_INTERRUPT" not in jump.opname:
            protection = handler(jump.argval)
            if protection and protection[0] in with_blocks and protection != handler(jump.offset):
                yield jump.positions.lineno


@pytest.mark.skipif(sys.version_info < (3, 13), reason="older compilers protect such steps")
def test_no_loop_in_the_block_of_a_lock_has_a_step_that_is_not_protected():
    """Guards: Python 3.13 and 3.14 left a lock held when a handler raised at the end of a turn."""
    found = set()
    for path in sorted(Path(pidfdpool.__file__).parent.rglob("*.py")):
        text = path.read_text()
        blocks = blocks_of_locks(ast.parse(text))
        for code in codes_in(compile(text, str(path), "exec", dont_inherit=True)):
            found |= {
                (path.name, code.co_qualname, line)
                for line in unprotected_steps(code)
                if any(line in block for block in blocks)
            }
    assert {(file, function) for file, function, _ in found} <= {
        ("processes.py", "Processes.lose"),  # in the supervisor's thread, which no handler interrupts
        ("selftest.py", "_end_with"),  # no lock
        ("processes.py", "_leader"),  # no lock
        ("map.py", "run"),  # no lock
    }
