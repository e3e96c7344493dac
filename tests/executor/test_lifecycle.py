"""What happens to all pools at the interpreter's end and after a fork, with pools that only take notes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import weakref
from contextlib import nullcontext, suppress

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.executor import lifecycle
from tests.conditions import in_forked_child
from tests.executor.test_fork_of_host import Held


class Executor:
    def __init__(self, notes):
        self.notes = notes

    def finish_maps(self, *, cancel):
        self.notes.append(("maps", cancel, lifecycle._exiting))

    def stop_reading_here(self):
        self.notes.append(("streams", lifecycle._exiting))

    def forget_pool_of_parent(self):
        self.notes.append("forget")
        assert lifecycle._owner != os.getpid(), "another thread would take the copies for its own"


class Pool:
    def __init__(self, notes):
        self.notes = notes
        self.interrupted = False

    def submit_for_lost_owner(self):
        self.notes.append(("lost", lifecycle._exiting))

    def shutdown(self, *, cancel):
        self.notes.append(("shutdown", cancel, lifecycle._exiting))

    def kill(self, number):
        self.notes.append(("kill", number))

    def join(self):
        self.notes.append("join")
        if self.interrupted:
            self.interrupted = False
            raise KeyboardInterrupt

    def abandon_in_forked_child(self):
        self.notes.append("abandon")
        assert lifecycle._owner != os.getpid()


@pytest.fixture
def notes(monkeypatch):
    """Have this process begin with no pool, and go on with its own afterwards."""
    for name, value in (
        ("_own_pools", weakref.WeakSet()), ("_pools", weakref.WeakSet()), ("_exiting", False),
        ("_lock", threading.RLock()), ("_owner", os.getpid()), ("_fork_locks", {}),
    ):  # fmt: skip
        monkeypatch.setattr(lifecycle, name, value)
    monkeypatch.delattr(sys, "last_type", raising=False)
    return []


@pytest.fixture
def registered(notes):
    executor, pool = Executor(notes), Pool(notes)
    lifecycle.add_own_pool(executor)
    lifecycle.add_pool(pool)
    return executor, pool


@pytest.mark.usefixtures("registered")
def test_at_the_end_everything_is_submitted_while_that_is_possible_and_then_finished(notes):
    lifecycle._at_exit()
    assert notes == [
        ("maps", False, False), ("streams", False), ("lost", False), ("shutdown", False, True), "join"
    ]  # fmt: skip
    assert not lifecycle.is_usable()
    with pytest.raises(RuntimeError, match="after interpreter shutdown"):
        lifecycle.add_pool(Pool(notes))
    assert len(lifecycle._pools) == 1


@pytest.mark.usefixtures("registered")
def test_after_ctrl_c_has_ended_the_program_nothing_is_waited_for_but_the_end(notes, monkeypatch):
    monkeypatch.setattr(sys, "last_type", KeyboardInterrupt, raising=False)
    monkeypatch.setattr(lifecycle.native, "is_interactive", lambda: False)
    lifecycle._at_exit()
    assert notes == [
        ("maps", True, False), ("streams", False), ("lost", False), ("kill", signal.SIGKILL), "join"
    ]  # fmt: skip


def test_ctrl_c_at_the_end_means_all_pools_and_each_is_waited_for(notes, registered):
    _, first = registered
    other = Pool(notes)
    lifecycle.add_pool(other)
    first.interrupted = other.interrupted = True
    lifecycle._at_exit()
    rest = notes[notes.index("join") :]
    assert rest == ["join", *[("kill", signal.SIGKILL)] * 2, "join"] * 2


@pytest.mark.usefixtures("registered")
def test_a_forked_child_lets_go_of_its_copies_executors_first_and_then_the_pools_are_its_own(notes):
    before = lifecycle._lock

    def child():
        assert notes == ["forget", "abandon"]  # by the hook
        assert lifecycle._lock is not before
        assert lifecycle._owner == os.getpid()
        assert not lifecycle._pools
        lifecycle.detect_fork()
        assert notes == ["forget", "abandon"], "once"
        notes.clear()
        lifecycle._at_exit()
        assert notes == [("maps", False, False), ("streams", False)], "what was the parent's is not waited for"

    assert in_forked_child(child) == "ok"
    assert notes == []


@pytest.mark.usefixtures("registered")
def test_a_lock_that_another_thread_holds_stops_no_forked_child(notes):
    def child():
        threading.Timer(20, os._exit, (1,)).start()  # it would hang
        pool = Pool(notes)
        lifecycle.add_pool(pool)
        lifecycle._at_exit()
        assert notes[-1] == "join"

    with Held(lifecycle._lock):
        assert in_forked_child(child) == "ok"


@pytest.mark.usefixtures("registered")
def test_a_fork_that_python_has_not_noticed_is_noticed_at_the_next_call(notes, monkeypatch):
    monkeypatch.setattr(lifecycle, "_owner", os.getpid() + 1)
    assert lifecycle.is_usable()
    assert notes == ["forget", "abandon"]
    assert lifecycle._owner == os.getpid()


def test_all_pools_are_shut_down_before_one_of_them_is_waited_for(notes, registered):
    """Guards: a pool whose tasks wait for another pool's would be waited for in vain."""
    other = Pool(notes)
    lifecycle.add_pool(other)
    lifecycle._at_exit()
    assert notes[-4:] == [("shutdown", False, True)] * 2 + ["join"] * 2
    assert [note for note in notes if note[0] == "lost"] == [("lost", False)] * 2
    assert registered


@pytest.mark.usefixtures("notes")
def test_a_pool_that_a_map_makes_at_the_end_is_finished_too(notes):
    late = []

    class Submits(Executor):
        def finish_maps(self, *, cancel):
            late.append(Pool(self.notes))
            lifecycle.add_pool(late[0])

    executor = Submits(notes)
    lifecycle.add_own_pool(executor)
    lifecycle._at_exit()
    assert notes == [("streams", False), ("lost", False), ("shutdown", False, True), "join"]


@pytest.mark.usefixtures("registered")
def test_at_the_end_of_a_process_that_was_forked_unseen_the_parents_pools_are_left_alone(notes, monkeypatch):
    monkeypatch.setattr(lifecycle, "_owner", os.getpid() + 1)
    lifecycle._at_exit()
    assert notes == ["forget", "abandon", ("maps", False, False), ("streams", False)]


@pytest.mark.usefixtures("notes")
def test_no_pool_is_added_while_the_end_looks_which_there_are(notes):
    """Guards: a pool that a thread makes at that moment was neither refused nor waited for."""
    with Held(lifecycle._lock):
        added, ended = (
            threading.Thread(target=each, daemon=True)
            for each in (lambda: lifecycle.add_pool(pool), lifecycle._at_exit)
        )
        pool = Pool(notes)
        added.start()
        ended.start()
        added.join(0.02)
        ended.join(0.02)
        assert added.is_alive()
        assert ended.is_alive()
        assert not lifecycle._exiting
        assert not lifecycle._pools
    added.join(10)
    ended.join(10)
    assert lifecycle._exiting


def test_in_the_process_that_has_made_the_pools_there_is_no_fork_to_detect(notes, registered):
    before = lifecycle._lock
    lifecycle.detect_fork()
    assert lifecycle.is_usable()
    assert (notes, lifecycle._lock, list(lifecycle._pools)) == ([], before, [registered[1]])


@pytest.mark.usefixtures("registered")
def test_threads_of_a_child_that_detect_the_fork_together_drop_the_copies_once(notes, monkeypatch):
    monkeypatch.setattr(lifecycle, "_owner", os.getpid() + 1)
    here = threading.RLock()
    lifecycle._fork_locks.update({os.getpid(): here, os.getpid() + 1: None})
    threads = [threading.Thread(target=each) for each in (lifecycle.detect_fork, lifecycle.is_usable) * 2]
    with Held(here):
        for thread in threads:
            thread.start()
        threads[0].join(0.02)
        assert all(thread.is_alive() for thread in threads), "they wait for the one that drops them"
        assert notes == []
    for thread in threads:
        thread.join(10)
    assert notes == ["forget", "abandon"]


@pytest.mark.parametrize("exiting", [False, True])
def test_until_the_end_tasks_may_be_submitted(notes, monkeypatch, exiting):
    monkeypatch.setattr(lifecycle, "_exiting", exiting)
    assert lifecycle.is_usable() is not exiting
    if exiting:
        with pytest.raises(RuntimeError, match="^cannot schedule new futures after interpreter shutdown$"):
            lifecycle.check_not_exiting()
    else:
        lifecycle.check_not_exiting()
    assert notes == []


class Interrupted(KeyboardInterrupt):
    """What a program may derive."""


@pytest.mark.parametrize(
    ("last", "interactive", "expected"),
    [
        (KeyboardInterrupt, False, True),
        (Interrupted, False, True),
        (KeyboardInterrupt, True, False),
        (ValueError, False, False),
        ("KeyboardInterrupt", False, False),
        (None, False, False),
    ],
)
def test_only_a_program_that_ctrl_c_has_ended_kills_at_its_end(notes, monkeypatch, last, interactive, expected):
    if last is not None:
        monkeypatch.setattr(sys, "last_type", last, raising=False)
    monkeypatch.setattr(lifecycle.native, "is_interactive", lambda: interactive)
    assert lifecycle._is_ended_by_ctrl_c() is expected
    assert notes == []


@pytest.mark.parametrize(
    ("left_by", "interrupted", "done"),
    [
        (None, False, ["shutdown"]),
        (ValueError, False, ["shutdown"]),
        (KeyboardInterrupt, False, ["kill", "shutdown"]),
        (None, True, ["shutdown", "kill", "shutdown"]),
        (ValueError, True, ["shutdown", "kill", "shutdown"]),
    ],
)
def test_a_block_that_ctrl_c_ends_or_whose_end_it_interrupts_does_not_wait_for_tasks(left_by, interrupted, done):
    executor, did = PidfdPoolExecutor(1), []

    def shutdown(*, wait):
        did.append("shutdown")
        if interrupted and len(did) == 1:
            raise KeyboardInterrupt

    executor.shutdown, executor.kill_workers = shutdown, lambda: did.append("kill")
    expected = KeyboardInterrupt if interrupted else left_by
    with pytest.raises(expected) if expected is not None else nullcontext(), executor:
        if left_by is not None:
            raise left_by
    assert did == done


# ---- what counts as Ctrl-C ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (None, False),
        (ValueError, False),
        (SystemExit, False),
        (KeyboardInterrupt, True),
        (Interrupted, True),
        (asyncio.CancelledError, False),
    ],
)
def test_outside_of_an_event_loop_only_ctrl_c_itself_counts(kind, expected):
    assert lifecycle.is_caused_by_ctrl_c(kind) is expected


def test_in_an_event_loop_a_cancellation_counts_only_after_ctrl_c():
    """Otherwise a task that its own program cancels would have the workers of others killed."""
    seen = []

    async def cancelled():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as error:
            seen.append((lifecycle.is_caused_by_ctrl_c(type(error)), lifecycle.is_caused_by_ctrl_c(ValueError)))
            raise

    async def main():
        task = asyncio.ensure_future(cancelled())
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        signal.raise_signal(signal.SIGINT)
        await cancelled()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert seen == [(False, False), (True, False)]


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_block_in_an_event_loop_that_is_cancelled_kills_only_after_ctrl_c(interrupted):
    executor, did = PidfdPoolExecutor(1), []
    executor.shutdown, executor.kill_workers = lambda *, wait: did.append("shutdown"), lambda: did.append("kill")

    async def block():
        with executor:
            await asyncio.sleep(60)

    async def main():
        task = asyncio.ensure_future(block())
        await asyncio.sleep(0)
        if interrupted:
            signal.raise_signal(signal.SIGINT)
        else:
            task.cancel()
        await task

    with pytest.raises(KeyboardInterrupt if interrupted else asyncio.CancelledError):
        asyncio.run(main())
    assert did == (["kill", "shutdown"] if interrupted else ["shutdown"])
