"""The stacks that faulthandler writes, as users read them."""

from __future__ import annotations

import faulthandler
import linecache
import os
import random
import sys

import pytest

from pidfdpool.loop import stacks
from pidfdpool.loop.stacks import NO_FRAME

OURS = os.path.dirname(os.path.dirname(stacks.__file__))

# As CPython writes them, from 3.11 to 3.13 and from 3.14 on.
HEADERS = [
    "Current thread 0x00007fbe4b288b80 (most recent call first):",
    "Current thread 0x00007f0f633f2780 [pidfd-worker0] (most recent call first):",
]
HEADER = HEADERS[0]
END = 99_999  # of a file of ours: whatever is written there some day, this line has no source


def frame(file, line, name):
    return f'  File "{file}", line {line} in {name}'


LOOP = [
    frame(f"{OURS}/worker/process.py", END, "_outcome"),
    frame(f"{OURS}/worker/process.py", END, "run"),
    frame(f"{OURS}/template/process.py", END, "_become_worker"),
    frame(f"{OURS}/template/process.py", END, "main"),
]
BY_EXEC = [*LOOP, frame("<string>", 1, "<module>")]
BY_FORK = [
    *LOOP,
    frame(f"{OURS}/template/launching.py", END, "fork"),
    frame(f"{OURS}/executor.py", END, "submit"),
    frame("/home/someone/host.py", 9, "<module>"),
]
TASK = [frame("/no/such/file.py", 3, "inner"), frame("/no/such/file.py", 6, "task")]


def told(*lines):
    return stacks.told("\n".join(lines) + "\n").split("\n")


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
@pytest.mark.parametrize("below", [BY_EXEC, BY_FORK], ids=["exec", "fork"])
def test_of_a_task_its_own_frames_are_told(header, below):
    assert told(header, *TASK, *below) == [header, *TASK]


def test_a_chunk_of_map_is_the_loops():
    chunk = [frame(f"{OURS}/worker/chunk.py", END, name) for name in ("_make_calls", "call_all")]
    assert told(HEADER, *TASK, *chunk, *BY_EXEC) == [HEADER, *TASK]


def test_a_pool_that_the_task_uses_is_the_tasks():
    nested = [frame(f"{OURS}/loop/poller.py", END, "wait_for_answers"), frame(f"{OURS}/futures.py", END, "result")]
    assert told(HEADER, *nested, *TASK, *BY_FORK) == [HEADER, *nested, *TASK]


def test_a_pool_in_a_worker_of_a_task_that_was_forked_is_told_from_its_own_task_on():
    outer = [frame(f"{OURS}/executor.py", END, "submit"), frame("/no/such/outer.py", 1, "outer"), *BY_FORK]
    assert told(HEADER, *TASK, *LOOP, *outer) == [HEADER, *TASK]


def test_of_pickling_one_frame_is_kept():
    """The task hangs when its call is rebuilt or its result pickled."""
    pickling = [frame(f"{OURS}/picklers.py", END, "pickled"), frame(f"{OURS}/payload.py", END, "dumps")]
    assert told(HEADER, *TASK, *pickling, *BY_EXEC) == [HEADER, *TASK, pickling[0]]


def test_a_stack_is_never_empty():
    """A task may be a function in C, and a worker may wait for one."""
    shown = told(HEADER, *BY_EXEC)
    assert shown[:3] == [HEADER, NO_FRAME, LOOP[0]]
    waiting = [frame(f"{OURS}/channel.py", END, "receive"), frame(f"{OURS}/spinning.py", END, "wait")]
    assert told(HEADER, *waiting, *BY_EXEC)[:3] == [HEADER, NO_FRAME, waiting[0]]
    assert told(HEADER, "  Garbage-collecting", *BY_EXEC)[:4] == [HEADER, "  Garbage-collecting", NO_FRAME, LOOP[0]]


def test_each_thread_is_told():
    thread = "Thread 0x00007fbe4a5886c0 [bésider] (most recent call first):"
    others = [frame("/usr/lib/python3/threading.py", 982, "run")]
    shown = told(thread, *others, "", HEADERS[1], *TASK, *BY_EXEC, "", thread, "  <no Python frame>", "")
    assert [line for line in shown if not line.startswith("    ")] == [
        *(thread, *others, ""),
        *(HEADERS[1], *TASK, ""),
        *(thread, "  <no Python frame>"),
    ]


def test_stacks_that_were_written_one_after_the_other_are_all_told():
    """A worker that ignores SIGTERM is asked once more."""
    assert told(HEADER, *TASK, *BY_EXEC, HEADER, *TASK, *BY_EXEC) == [HEADER, *TASK] * 2


def test_what_is_cut_off_is_told_as_far_as_it_goes():
    deep = [frame("/no/such/file.py", line, "deep") for line in range(100)]
    assert told(HEADER, *deep, "  ...") == [HEADER, *deep, "  ..."]
    assert told('x.py", line 3 in f', *TASK, *BY_EXEC) == ['x.py", line 3 in f', *TASK]


def test_a_recursion_is_told_shortly(tmp_path):
    path = tmp_path / "deep.py"
    path.write_text("def deep(n):\n    deep(n - 1)\n")
    line = frame(path, 2, "deep")
    assert told(HEADER, *[line] * 97, *TASK, *BY_EXEC) == [
        HEADER,
        *[line, "    deep(n - 1)"] * 3,
        "  [Previous line repeated 94 more times]",
        *TASK,
    ]
    assert told(HEADER, *[line] * 4)[-1] == "  [Previous line repeated 1 more time]"
    assert told(HEADER, *[line] * 3)[-1] == "    deep(n - 1)"


# ---- source ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["script.py", "skript_für_ж_\U0001d4b3.py", "with\\x41backslash.py", b"not-utf8-\xff.py"]
)
def test_the_line_of_source_is_told(tmp_path, name):
    path = os.path.join(tmp_path, os.fsdecode(name))
    with open(path, "w") as file:
        file.write("import time\n\nif True:\n    time.sleep(3)\n")
    written = frame(path.encode("ascii", "backslashreplace").decode(), 4, "<module>")
    assert told(HEADER, written, *BY_EXEC) == [HEADER, written, "    time.sleep(3)"]
    os.utime(path, (1, 1))
    with open(path, "w") as file:
        file.write("# it was edited\n" * 5)
    assert told(HEADER, written)[-1] == "    # it was edited", "as tracebacks do"


def test_the_source_of_a_cell_is_known(monkeypatch):
    monkeypatch.setitem(linecache.cache, "<cell-1>", (4, None, ["def f():\n", "    hang()\n"], "<cell-1>"))
    line = frame("<cell-1>", 2, "f")
    assert told(HEADER, line, *BY_EXEC) == [HEADER, line, "    hang()"]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="the prompt keeps no source")
def test_the_source_of_what_was_typed_at_the_prompt_is_known(monkeypatch):
    for name in ("cache", "_interactive_cache"):
        if hasattr(linecache, name):
            monkeypatch.setattr(linecache, name, dict(getattr(linecache, name)))
    source = "def f():\n    hang()\n"
    name = "<python-input-7>"
    # From 3.14 on by code object.
    key = compile(source, name, "exec") if sys.version_info >= (3, 14) else name
    linecache._register_code(key, source, name)
    line = frame(name, 2, "f")
    assert told(HEADER, line)[-1] == "    hang()"
    assert told(HEADER, frame(name, 99, "f"))[-1] == frame(name, 99, "f")


@pytest.mark.parametrize("number", ["0", str(END), "???", "9" * 5000])
def test_a_line_that_is_not_there_is_no_trouble(number):
    line = frame(__file__, number, "f")
    assert told(HEADER, line) == [HEADER, line]


def test_what_is_no_file_is_not_opened(tmp_path):
    """A script may be read from a pipe: `python <(generate)`, `python /dev/stdin`."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    line = frame(pipe, 1, "<module>")
    assert told(HEADER, line) == [HEADER, line]


def test_a_linecache_that_raises_is_no_trouble(monkeypatch):
    def fail(*_):
        raise RuntimeError("a notebook has replaced it")

    monkeypatch.setattr(linecache, "checkcache", fail)
    line = frame(__file__, 1, "f")
    assert told(HEADER, line) == [HEADER, line]


# ---- what else there may be ------------------------------------------------------------------------------------


def test_what_this_python_writes_is_understood(tmp_path):
    with open(tmp_path / "written", "w+") as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        shown = stacks.told(file.read()).split("\n")
    assert frame(__file__, test_what_this_python_writes_is_understood.__code__.co_firstlineno + 2, "test_what") in [
        line.partition("_this_python")[0] for line in shown
    ]
    assert "    faulthandler.dump_traceback(file)" in shown


def test_no_text_raises():
    text = "\n".join([HEADERS[1], *TASK, "  ...", *BY_FORK, "", "", f"  Binary file {OURS!r}", '  File "', *BY_EXEC])
    chance = random.Random(1)
    for end in range(0, len(text), 7):
        assert isinstance(stacks.told(text[end:]), str)
        assert isinstance(stacks.told(text[:end]), str)
        mixed = list(text)
        chance.shuffle(mixed)
        assert isinstance(stacks.told("".join(mixed)), str)
    for odd in ("", "\n", "  ", "\0", "\udcff", "  File", "\r\n  \r\n"):
        stacks.told(odd)
        stacks.last_lines([odd], 3)


# ---- a crash, on standard error --------------------------------------------------------------------------------

CRASH = ["Fatal Python error: Segmentation fault", "", HEADERS[1], *TASK, *BY_EXEC]
IN_C = ["Current thread's C stack trace (most recent call first):"]
C_FRAMES = [f'  Binary file "/usr/bin/python3", at f{number}+0x7 [0x5ab3f7]' for number in range(32)]


def test_of_a_crash_all_is_told_but_the_pools_frames():
    written = [
        *(f"line {number}" for number in range(100)),
        *CRASH,
        "",
        *IN_C,
        *C_FRAMES,
        "  <truncated rest of calls>",
    ]
    assert stacks.last_lines(written, 5) == (
        *CRASH[:3],
        *TASK,
        "",
        *IN_C,
        *C_FRAMES[:8],
        "  ...",
    )


def test_what_was_written_before_a_short_crash_is_told_as_well():
    assert stacks.last_lines(["a", "b", "c", *CRASH], 7) == ("b", "c", *CRASH[:3], *TASK)


def test_of_other_lines_the_last_ones_are_told():
    assert stacks.last_lines([f"line {number}" for number in range(10)], 3) == ("line 7", "line 8", "line 9")
    assert stacks.last_lines([], 3) == ()
