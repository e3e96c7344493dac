"""Tasks that write, close or take what is their worker's cost that worker, their own future, and nothing else."""

from __future__ import annotations

import collections
import itertools
import logging
import os
from termios import FIONREAD

import pytest

from pidfdpool import PidfdPoolExecutor, WorkerCrashed
from pidfdpool.transport import framing
from tests import calls, hostile
from tests.conditions import eventually, open_descriptors, run_python
from tests.pace import send_ahead

GIB = 1 << 30


def peak() -> int:
    """Return the most memory that this process had since `forget_peak`, in bytes."""
    with open("/proc/self/status") as file:
        [line] = [line for line in file if line.startswith("VmHWM")]
    return int(line.split()[1]) << 10


def forget_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def costs_only_itself(pool, function, *arguments, **keywords):
    """Have a task do something to its worker; return its error when its neighbour and the pool have proved well."""
    neighbour = pool.submit(calls.sleep, 0.05, "neighbour")
    bad = pool.submit(function, *arguments, **keywords)
    behind = pool.submit(calls.double, 21)
    error = bad.exception(timeout=30)
    assert (neighbour.result(timeout=30), behind.result(timeout=30)) == ("neighbour", 42)
    assert pool.stats().broken is None
    return error


# ---- what is written into the channel ----------------------------------------------------------------------------

# Whoever writes these does not know the channel's cookie. By themselves, many of them could be frames, or begin some.
STRAY = {
    "text": b"a line of text\n",
    "a newline, which is the kind of READY": b"\n",
    "an empty line and text": b"\nmore than sixteen bytes of text, and another line\n",
    "the first byte of RESULT": b"\x0b",
    "RESULT of text": b"\x0b" * 100,
    "a length of 2**63": hostile.frame(framing.RESULT, [1 << 63]),
    "the largest length": hostile.frame(framing.RESULT, [(1 << 64) - 1]),
    "3 GiB in 24 bytes": hostile.frame(framing.RESULT, [3 * GIB]),
    "255 buffers of 1 GiB": hostile.frame(framing.RESULT, [GIB] * 255),
    "an exception of 3 GiB": hostile.frame(framing.ERROR, [3 * GIB, 1]),
    "an exception without buffers": hostile.frame(framing.ERROR),
    "a reason that is missing": hostile.frame(framing.UNHEALTHY),
    "a failed initializer": hostile.frame(framing.INITIALIZER_FAILED, [0, 0]),
    "a failed initializer without buffers": hostile.frame(framing.INITIALIZER_FAILED),
    "READY": hostile.frame(framing.READY),
    "fewer dropped than none": hostile.frame(framing.DROPPED, value=-5),
    "that the script is to be run": hostile.frame(framing.OUTDATED, value=1),
    "the host's kind of frame": hostile.frame(framing.TASK, [3], b"abc", value=1),
    "the template's kind of frame": hostile.frame(framing.DIED, [16], bytes(16)),
}


def test_bytes_that_are_not_the_workers_own_cost_only_the_task_that_wrote_them(pool):
    forget_peak()
    before = peak()
    for what, data in STRAY.items():
        error = costs_only_itself(pool, hostile.babble, data, 30.0)
        assert isinstance(error, WorkerCrashed), what
        assert "something wrote into its channel" in str(error), what
    assert peak() - before < 64 << 20, "no memory is had for what has not come"


# The same for who knows the cookie: each kind with too few and too many buffers, and numbers that cannot be.
SEALED = {
    "RESULT without buffers": {"kind": framing.RESULT},
    "RESULT in a segment that was not lent": {"kind": framing.RESULT, "slot": 3, "buffers": [bytes(16)]},
    "RESULT that names nothing": {"kind": framing.RESULT, "slot": 3, "buffers": [b"abc"]},
    "RESULT of another's task": {"kind": framing.RESULT, "buffers": [b"N."]},
    "RESULT of a negative task": {"kind": framing.RESULT, "buffers": [b"N."], "value": -1},
    "RESULT that is no pickle and of nobody": {"kind": framing.RESULT, "buffers": [b""], "value": 1 << 62},
    "a length of 2**63": {"kind": framing.RESULT, "lengths": [1 << 63]},
    "lengths that are absurd together": {"kind": framing.RESULT, "lengths": [1 << 45] * 3},
    "ERROR without buffers": {"kind": framing.ERROR},
    "ERROR with one": {"kind": framing.ERROR, "buffers": [b"N."]},
    "ERROR with three": {"kind": framing.ERROR, "buffers": [b"", b"", b""]},
    "ERROR in a segment": {"kind": framing.ERROR, "slot": 3, "buffers": [bytes(16), b""]},
    "ERROR that is empty": {"kind": framing.ERROR, "buffers": [b"", b""]},
    "INITIALIZER_FAILED without buffers": {"kind": framing.INITIALIZER_FAILED},
    "INITIALIZER_FAILED out of turn": {"kind": framing.INITIALIZER_FAILED, "buffers": [b"N.", b"text"]},
    "UNHEALTHY without a reason": {"kind": framing.UNHEALTHY},
    "UNHEALTHY with two": {"kind": framing.UNHEALTHY, "buffers": [b"a", b"b"]},
    "UNHEALTHY at length": {"kind": framing.UNHEALTHY, "lengths": [GIB]},
    "LOG without a record": {"kind": framing.LOG},
    "LOG at length": {"kind": framing.LOG, "lengths": [GIB]},
    "LOG of a negative task": {"kind": framing.LOG, "buffers": [b"N."], "value": -1},
    "ITEMS without one": {"kind": framing.ITEMS},
    "ITEMS of another's task": {"kind": framing.ITEMS, "buffers": [b"N."]},
    "ITEMS of a task that there is not": {"kind": framing.ITEMS, "buffers": [b"N."], "value": 1 << 62},
    "ITEMS that are two lists": {"kind": framing.ITEMS, "slot": 1, "buffers": [b"N.", b"N."]},
    "READY with a buffer": {"kind": framing.READY, "buffers": [b"a"]},
    "DROPPED of none": {"kind": framing.DROPPED, "value": 0},
    "DROPPED of fewer": {"kind": framing.DROPPED, "value": -5},
    "DROPPED of more": {"kind": framing.DROPPED, "value": 7},
    "OUTDATED with a buffer": {"kind": framing.OUTDATED, "buffers": [b"a"]},
    "CALL_NOT_RECEIVED of no task": {"kind": framing.CALL_NOT_RECEIVED, "value": -1},
    "a request of the host's": {"kind": framing.EXIT},
    "a word of the template's": {"kind": framing.SPAWNED, "value": 1},
    "a kind that there is not": {"kind": 99},
}


def test_frames_that_no_loop_writes_cost_only_the_worker_that_writes_them(pool):
    for what, arguments in SEALED.items():
        error = costs_only_itself(pool, hostile.with_cookie, **{"value": 1, **arguments})
        assert isinstance(error, WorkerCrashed), what
        assert "something wrote into its channel" in str(error), what


@pytest.mark.usefixtures("sure_of_deaths")
def test_what_was_written_before_counts_and_the_log_says_what_came(caplog):
    with PidfdPoolExecutor(1) as pool, caplog.at_level(logging.WARNING, "pidfdpool"):
        before = pool.submit(calls.double, 21)
        error = pool.submit(hostile.babble, b"some text", 30.0).exception(timeout=30)
        assert before.result() == 42
        [death] = [pool.submit(calls.double, 1).result() and error.death]
    assert "b'some text'" in str(death)
    assert any("b'some text'" in record.getMessage() for record in caplog.records)


def test_a_result_and_what_follows_it_in_one_read_are_told_apart(tmp_path):
    with PidfdPoolExecutor(1, prefetch=60.0) as pool:
        list(pool.map(calls.double, range(100), chunksize=1))  # so that tasks are sent ahead
        first = pool.submit(calls.run_until, str(tmp_path / "runs"), str(tmp_path / "go"), "first")
        bad = pool.submit(hostile.babble, b"nonsense", 30.0)
        behind = pool.submit(calls.double, 21)
        held = pool.submit(calls.double, 1)
        held.add_done_callback(lambda _: None)
        eventually((tmp_path / "runs").exists, "it runs")
        send_ahead(pool, 3)
        # The answer and the nonsense are read together, because nobody reads until both are there.
        with pool._pool.core.poller.serving:
            (tmp_path / "go").touch()
            calls.wait_for(str(tmp_path / "go"))
            # The pipe has both when the channel has the nonsense, too.
            eventually(lambda: pool._pool.core.workers[0].channel.unread_bytes(FIONREAD) == 8, "both are written")
        assert first.result(timeout=30) == "first"
        assert isinstance(bad.exception(timeout=30), WorkerCrashed)
        assert behind.result(timeout=30) == 42


def unread(pool) -> int:
    """Return how many bytes the host has not read of its first worker's."""
    return pool._pool.core.workers[0].answers.unread_bytes(FIONREAD)


# ---- the channel's end --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("then", ["sleep", "fill", "return"])
def test_a_worker_that_has_closed_its_channel_and_lives_is_killed(pool, then):
    error = costs_only_itself(pool, hostile.close_everything_and, then)
    assert isinstance(error, WorkerCrashed)
    if then != "return":
        assert "its channel was closed while it went on" in str(error)


def test_a_worker_that_has_closed_only_its_pipe_and_lives_is_killed(pool):
    error = costs_only_itself(pool, hostile.close_pipe_and_sleep)
    assert "its channel was closed while it went on" in str(error)


def test_nobody_but_the_worker_can_write_into_its_pipe(pool):
    """Otherwise the host would not see that the worker has closed it."""
    inode, in_child, in_worker = pool.submit(hostile.pipes_here_and_in_a_child).result(timeout=30)
    assert (in_child, in_worker) == (0, 1)
    of_template = open_descriptors(pool._pool.core.template.end.pid)
    assert f"pipe:[{inode}]" not in of_template.values()
    pool.submit(calls.die).exception(timeout=30)
    assert pool.submit(hostile.pipes_here_and_in_a_child).result(timeout=30)[1:] == (0, 1)


def test_an_initializer_that_closes_the_channel_is_noticed():
    with PidfdPoolExecutor(1, initializer=hostile.close_everything_and, initargs=("sleep",), intensity=2) as pool:
        error = pool.submit(calls.double, 1).exception(timeout=30)
    assert "its channel was closed while it went on" in str(error.deaths[-1])


def test_a_worker_that_ends_by_itself_has_not_closed_its_channel(pool):
    error = costs_only_itself(pool, calls.die, 9)
    assert "ended by the pool" not in str(error)


@pytest.mark.parametrize(
    "preload",
    [
        "os.closerange(3, 256)",
        "babble(b'text'); time.sleep(60)",
        "babble(frame(33, [3 << 30, 1])); time.sleep(60)",  # that it failed, at length
    ],
    ids=["closes", "writes text", "writes a frame"],
)
def test_a_template_that_closes_its_channel_or_writes_into_it_is_killed(tmp_path, preload):
    (tmp_path / "broken_preload.py").write_text(
        f"import os, time\nfrom tests.hostile import babble, frame\nif os.getpid() != {os.getpid()}:\n    {preload}\n"
    )
    done = run_python(
        f"""
        import sys; sys.path.insert(0, {str(tmp_path)!r})
        from pidfdpool import PidfdPoolExecutor
        with PidfdPoolExecutor(1, preload=["broken_preload"], intensity=1) as pool:
            print(type(pool.submit(abs, 1).exception(timeout=20)).__name__)
        """
    )
    assert done.stdout == "PoolBroken\n", done.stderr


# ---- tokens -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "raises"),
    [
        ((hostile.put_tokens, 1), False),
        ((hostile.put_tokens, 1000), False),
        ((hostile.put_tokens, 1, "die"), True),
        ((hostile.put_tokens, 1000, "die"), True),
        ((hostile.drain_tokens,), False),
        ((hostile.drain_tokens, "die"), True),
    ],
    ids=["put 1", "put 1000", "put 1 and die", "put 1000 and die", "drain", "drain and die"],
)
def test_tokens_that_a_task_forges_neither_lose_a_task_nor_make_one_run_twice(tmp_path, bad, raises):
    with PidfdPoolExecutor(2, intensity=None) as pool:
        list(pool.map(calls.double, range(100), chunksize=1))  # so that tasks are sent ahead
        futures, hostiles = [], []
        for lot in range(4):
            hostiles.append(pool.submit(*bad))
            futures += [pool.submit(hostile.run_once, str(tmp_path), f"{lot}-{n}", 0.002) for n in range(25)]
        assert [future.exception(timeout=30) for future in futures] == [None] * 100
        for future in hostiles:
            assert isinstance(future.exception(timeout=30), WorkerCrashed if raises else type(None))
    runs = collections.Counter(len(path.read_text().splitlines()) for path in tmp_path.iterdir())
    assert runs == {1: 100}


def test_a_task_that_forges_tokens_and_dies_runs_once_itself(tmp_path):
    with PidfdPoolExecutor(1) as pool:
        for count in (1, 2, 1000):
            path = tmp_path / f"ran-{count}"
            error = pool.submit(hostile.put_tokens, count, "die", str(path)).exception(timeout=30)
            assert isinstance(error, WorkerCrashed)
            assert len(path.read_text().splitlines()) == 1


def test_tasks_that_were_taken_back_do_not_run_though_there_are_tokens_for_them(tmp_path):
    with PidfdPoolExecutor(1, prefetch=60.0) as pool:
        list(pool.map(calls.double, range(100), chunksize=1))
        first = pool.submit(hostile.put_tokens_and_wait, str(tmp_path / "put"), str(tmp_path / "go"))
        ahead = [pool.submit(hostile.run_once, str(tmp_path), f"ahead-{n}") for n in range(10)]
        eventually((tmp_path / "put").exists, "it has put tokens down")
        send_ahead(pool, 10)
        cancelled = [future.cancel() for future in ahead[5:]]
        (tmp_path / "go").touch()
        first.result(timeout=30)
        assert [future.result(timeout=30) for future in ahead[:5]] == [f"ahead-{n}" for n in range(5)]
        assert cancelled == [True] * 5
        again = [pool.submit(hostile.run_once, str(tmp_path), f"again-{n}") for n in range(10)]
        assert [future.result(timeout=30) for future in again] == [f"again-{n}" for n in range(10)]
    assert not [path for path in tmp_path.iterdir() if path.name in {f"ahead-{n}" for n in range(5, 10)}]


# ---- what was lent to it ------------------------------------------------------------------------------------------


def test_a_cancel_behind_a_task_that_has_a_segment_leaves_that_one_its_segment(tmp_path):
    with PidfdPoolExecutor(1, prefetch=60.0) as pool:
        for _ in range(3):
            pool.submit(hostile.make_bytes, 1 << 20).result(timeout=30)  # from now on it is lent a segment
        list(pool.map(calls.double, range(100), chunksize=1))
        worker = pool.workers()[0].pid
        held = pool.submit(calls.run_until, str(tmp_path / "runs"), str(tmp_path / "go"), "held")
        ahead = [pool.submit(hostile.make_bytes, 1 << 20) for _ in range(3)]
        eventually((tmp_path / "runs").exists, "it runs")
        send_ahead(pool, 3)
        account = pool._pool.core.workers[0].account
        assert account.leased, "what is ahead was lent a segment"
        assert ahead[2].cancel()
        (tmp_path / "go").touch()
        assert held.result(timeout=30) == "held"
        assert [len(future.result(timeout=30)) for future in ahead[:2]] == [1 << 20] * 2
        assert pool.workers()[0].pid == worker, "it was not killed"
        eventually(lambda: not account.leased, "what was leased is back")


# ---- what a dead worker leaves ------------------------------------------------------------------------------------


def test_all_that_a_worker_wrote_is_read_though_it_is_dead(tmp_path):
    with PidfdPoolExecutor(1, prefetch=60.0) as pool:
        list(pool.map(calls.double, range(100), chunksize=1))
        pool.submit(hostile.widen_pipe).result(timeout=30)
        begun = pool.submit(calls.run_until, str(tmp_path / "runs"), str(tmp_path / "go"), "begun")
        results = [pool.submit(hostile.make_bytes, 30_000) for _ in range(10)]
        last = pool.submit(calls.die)
        worker = pool.workers()[0].pid
        eventually((tmp_path / "runs").exists, "it runs")
        send_ahead(pool, 11)
        with pool._pool.core.poller.serving:  # nobody reads before it is dead: more is there than a few reads take
            (tmp_path / "go").touch()
            eventually(lambda: not os.path.exists(f"/proc/{worker}"), "the worker is dead and reaped")
            assert unread(pool) > 4 << 16
        assert begun.result(timeout=30) == "begun"
        assert [len(future.result(timeout=30)) for future in results] == [30_000] * 10
        assert isinstance(last.exception(timeout=30), WorkerCrashed)


def test_a_worker_that_closes_its_standard_error_keeps_nobody_busy(monkeypatch):
    from pidfdpool.loop.worker_stderr import Stderr

    reads = itertools.count()
    read = Stderr.read
    monkeypatch.setattr(Stderr, "read", lambda self: next(reads) >= 0 and read(self))
    with PidfdPoolExecutor(1, capture_stderr=True) as pool:
        pool.submit(hostile.close_standard_error).result(timeout=30)
        link = pool._pool.core.workers[0]
        eventually(lambda: not link._stderr_watch.active, "its end is noticed, and not waited for again")
        count = next(reads)
        assert pool.submit(calls.double, 21).result(timeout=30) == 42
        assert next(reads) == count + 1, "nor looked at"
