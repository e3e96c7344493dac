"""The stacks of faulthandler: bounds, repetitions, and where the source of a frame is looked for."""

from __future__ import annotations

import linecache
import sys

import pytest

from pidfdpool.loop import stacks
from pidfdpool.loop.stacks import NO_FRAME
from tests.loop.test_stacks import BY_EXEC, C_FRAMES, CRASH, END, HEADER, IN_C, LOOP, OURS, TASK, frame, told

# ---- cutting -----------------------------------------------------------------------------------------------------


def test_fewer_lines_than_are_asked_for_are_all_told():
    assert stacks.last_lines(["a"], 3) == ("a",)
    assert stacks.last_lines(["a", "b", "c"], 3) == ("a", "b", "c")


def test_of_two_crashes_the_last_one_is_told_whole():
    lines = [*CRASH, *CRASH, *(f"line {number}" for number in range(10))]
    assert stacks.last_lines(lines, 5) == (*CRASH[:3], *TASK, *lines[-10:])


def test_a_crash_that_is_among_the_last_lines_anyway_changes_nothing():
    lines = ["a", "b", CRASH[0], "c"]
    assert stacks.last_lines(lines, 3) == ("b", CRASH[0], "c")


@pytest.mark.parametrize(("count", "shown"), [(7, 7), (8, 8), (9, 8)])
def test_of_the_stack_of_c_few_frames_are_told_and_it_is_said_if_there_are_more(count, shown):
    expected = (*IN_C, *C_FRAMES[:shown], *(["  ..."] if count > shown else []))
    assert stacks.last_lines([*IN_C, *C_FRAMES[:count]], 99) == expected


@pytest.mark.parametrize("below", ["worker/loop.py", "template/process.py", "swarm/node_process.py"])
def test_whatever_runs_tasks_is_cut_off(below):
    bottom = frame(f"{OURS}/{below}", END, "run")
    assert told(HEADER, *TASK, bottom) == [HEADER, *TASK]
    assert told(HEADER, bottom) == [HEADER, NO_FRAME, bottom]


def test_other_files_of_the_pool_run_no_tasks():
    bottom = frame(f"{OURS}/executor/executor.py", END, "submit")
    assert told(HEADER, *TASK, bottom) == [HEADER, *TASK, bottom]


def test_files_of_another_package_with_such_a_name_are_the_tasks():
    other = frame(f"{OURS}_plugin/worker/job.py", END, "run")
    assert told(HEADER, *TASK, other, *BY_EXEC) == [HEADER, *TASK, other]


def test_of_several_frames_of_pickling_the_innermost_is_told():
    pickling = [frame(f"{OURS}/serialization/{name}.py", END, name) for name in ("a", "b", "c")]
    assert told(HEADER, *TASK, *pickling, *BY_EXEC) == [HEADER, *TASK, pickling[0]]
    assert told(HEADER, *pickling, *BY_EXEC) == [HEADER, NO_FRAME, pickling[0]]


def test_blank_lines_at_the_end_are_not_told():
    assert told(HEADER, *TASK, "", "  ", "") == [HEADER, *TASK]


# ---- repetitions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "last"),
    [(3, None), (4, "  [Previous line repeated 1 more time]"), (5, "  [Previous line repeated 2 more times]")],
)
def test_of_frames_alike_three_are_shown(times, last):
    line = TASK[0]
    assert told(HEADER, *[line] * times) == [HEADER, *[line] * 3, *([last] if last else [])]


def test_lines_alike_that_are_no_frames_are_all_told():
    assert told(*["again"] * 5, *TASK) == [*["again"] * 5, *TASK]


def test_a_recursion_through_two_functions_is_told_as_it_is():
    assert told(HEADER, *TASK * 4) == [HEADER, *TASK * 4]


# ---- source ------------------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "job.py"
    path.write_text("one()\ntwo()\n\n    three()   \n")
    return path


def test_each_frame_has_its_own_line_without_the_blanks_around_it(source):
    frames = [frame(source, number, "f") for number in (4, 2, 1, 3)]
    assert told(HEADER, *frames) == [
        HEADER,
        *(frames[0], "    three()"),
        *(frames[1], "    two()"),
        *(frames[2], "    one()"),
        frames[3],
    ]


def test_a_file_is_looked_at_once_for_all_of_its_frames(source, monkeypatch):
    looked = []
    monkeypatch.setattr(linecache, "checkcache", looked.append)
    told(HEADER, *[frame(source, number, "f") for number in (1, 2, 4)])
    assert looked == [str(source)]


def test_a_name_that_is_written_like_an_escape_is_found_if_there_is_no_other(tmp_path):
    for name, text in (("a\\x41.py", "as_written()\n"), ("aA.py", "as_it_is()\n")):
        (tmp_path / name).write_text(text)
        assert told(frame(tmp_path / "a\\x41.py", 1, "f"))[-1] == f"    {text.strip()}"


@pytest.mark.parametrize(
    ("written", "name"), [(r"\xe9", "\xe9"), (r"\u0436", "\u0436"), (r"\U0001d4b3", "\U0001d4b3"), (r"\q", r"\q")]
)
def test_every_form_of_escape_is_undone(written, name):
    assert stacks._as_it_is(f"/a{written}b") == f"/a{name}b"


@pytest.mark.skipif(sys.version_info < (3, 14), reason="the prompt keeps no code objects")
def test_what_was_typed_is_found_by_its_function(monkeypatch):
    typed = {}
    for key, lines in (
        (("<python-input-1>", "f", 1), ["def f():\n", "    in_f()\n"]),
        (("<python-input-1>", "Job.run", 1), ["class Job:\n", "    in_run()\n"]),
        (("<python-input-2>", "g", 1), ["def g():\n", "    in_g()\n", "    last()\n"]),
    ):
        typed[key] = (len(lines), None, lines, key[0])
    monkeypatch.setattr(linecache, "_interactive_cache", typed)
    for name, number, function, expected in (
        ("<python-input-1>", 2, "f", "in_f()"),
        ("<python-input-1>", 2, "run", "in_run()"),
        ("<python-input-1>", 1, "run", "class Job:"),
        ("<python-input-2>", 3, "g", "last()"),
    ):
        line = frame(name, number, function)
        assert told(line) == [line, f"    {expected}"]
    for line in (
        frame("<python-input-1>", 2, "g"),
        frame("<python-input-3>", 2, "f"),
        frame("<python-input-2>", 4, "g"),
    ):
        assert told(line) == [line]


def test_without_a_prompt_there_is_nothing_typed(monkeypatch):
    monkeypatch.delattr(linecache, "_interactive_cache", raising=False)
    line = frame("<python-input-1>", 1, "f")
    assert told(line) == [line]


def test_the_innermost_frame_of_the_loop_is_the_one_that_is_named_if_there_is_nothing_else():
    assert told(HEADER, *LOOP) == [HEADER, NO_FRAME, LOOP[0]]
