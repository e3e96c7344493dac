"""What proc(5) tells of a process, in whatever form it comes."""

from __future__ import annotations

import builtins
import io
import os
import signal
import time

import pytest

from pidfdpool.loop import process_usage
from tests.conditions import eventually

PAGE, TICK = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")


@pytest.fixture
def tells(monkeypatch):
    """Have the files of a process 5 hold a text, or have opening them fail."""

    def tell(found):
        def open_one(path, mode):
            assert (path.split("/")[:3], mode) == (["", "proc", "5"], "rb")
            if isinstance(found, Exception):
                raise found
            return io.BytesIO(found[path.rpartition("/")[2]])

        monkeypatch.setattr(process_usage, "open", open_one, raising=False)

    yield tell
    assert open is builtins.open


def test_resident_memory_is_counted_in_pages_and_without_what_is_the_pools(tells):
    tells({"statm": b"9000 100 40 7 0 800 0\n"})
    assert process_usage.resident(5) == 100 * PAGE
    assert process_usage.resident(5, 10 * PAGE) == 90 * PAGE
    assert process_usage.resident(5, 40 * PAGE) == 60 * PAGE
    assert process_usage.resident(5, 5000 * PAGE) == 60 * PAGE, "only what is resident of it counts, 40 pages at most"


@pytest.mark.parametrize(
    "found",
    [{"statm": b"0 0 0 0 0 0 0\n"}, {"statm": b""}, {"statm": b"1 2"}, {"statm": b"a b c"}, ProcessLookupError()],
    ids=["a zombie", "empty", "cut off", "no numbers", "gone"],
)
def test_memory_that_is_not_told_is_not_known(tells, found):
    tells(found)
    assert process_usage.resident(5) is None


@pytest.mark.parametrize("name", [b"python", b"a) b (c", b") 7 7"])
def test_processor_time_is_what_the_process_and_the_kernel_took_for_it_whatever_its_name(tells, name):
    tells(
        {
            "stat": b"5 ("
            + name
            + b") S 1 5 5 0 -1 4194560 11 12 13 14 "
            + b"%d %d 99 99 20 0 1 0\n" % (3 * TICK, TICK)
        }
    )
    assert process_usage.processor_time(5) == 4.0


def test_processor_time_of_a_process_that_is_gone_is_not_known(tells):
    tells(ProcessLookupError())
    assert process_usage.processor_time(5) is None


def test_masks_of_signals_are_those_that_it_blocks_ignores_and_catches(tells):
    lines = [
        b"Name:\tx:y",
        b"SigPnd:\t01",
        b"ShdPnd:\t200",
        b"SigBlk:\t000000000000000f",
        b"SigIgn:\t10",
        b"SigCgt:\tff",
        b"Seccomp:\t0",
    ]
    tells({"status": b"\n".join(lines) + b"\n"})
    masks = process_usage.signal_masks(5)
    assert masks == (0x200, 15, 16, 255)
    assert [number for number in range(1, 65) if masks.awaits(number)] == [10]
    assert [number for number in range(1, 65) if masks.survives(number)] == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    "found",
    [
        {"status": b"Name:\tx\n"},
        {"status": b"ShdPnd:\t0\nSigBlk:\tz\nSigIgn:\t1\nSigCgt:\t1\n"},
        {"status": b"x\n"},
        OSError(),
    ],
    ids=["not there", "no number", "no fields", "gone"],
)
def test_masks_that_are_not_told_are_not_known(tells, found):
    tells(found)
    assert process_usage.signal_masks(5) is None


def test_of_this_process_all_is_told():
    resident = process_usage.resident(os.getpid())
    assert PAGE < resident < 1 << 36
    before = process_usage.processor_time(os.getpid())
    assert abs(before - time.process_time()) < 5
    eventually(lambda: sum(range(100_000)) and process_usage.processor_time(os.getpid()) > before, "it is at work")
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert process_usage.signal_masks(os.getpid()).blocked == sum(1 << (number - 1) for number in blocked)
